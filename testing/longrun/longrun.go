package longrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Context ends when somebody wants the program to end, so that it can take away
// what it made.
func Context() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// Main runs a program and does not return if that fails: it prints the error
// behind the program's name and exits with 1.
func Main(name string, run func(context.Context) error) {
	ctx, stop := Context()
	defer stop()
	if err := run(ctx); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(os.Stderr, "%s: interrupted\n", name)
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Report writes what a run has found, if it found anything, and returns the run's
// error.
func Report[T any](file string, found *T, err error) error {
	if found == nil {
		return err
	}
	return errors.Join(err, WriteJSON(file, found))
}

// WriteJSON writes what was found to a file, making its directory.
func WriteJSON(file string, found any) error {
	data, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
