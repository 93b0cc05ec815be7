package demo

import (
	"fmt"
	"time"
)

// progressEvery is how often a line is printed where it cannot be rewritten.
const progressEvery = 5 * time.Second

// progress shows the state of the run, on a terminal in one line.
func (r *run) progress() {
	elapsed := time.Since(r.start)
	requests, errors := r.load.Progress()
	line := fmt.Sprintf("%5.1f s  crash %d/%d  %d requests (%.0f/s)  %d client errors",
		elapsed.Seconds(), len(r.crash), r.o.Kills, requests, float64(requests)/elapsed.Seconds(), errors)
	switch {
	case r.o.Terminal:
		fmt.Fprintf(r.o.Progress, "\r\x1b[K%s", line)
	case r.printed == 0 || elapsed >= r.printed+progressEvery:
		r.printed = elapsed
		fmt.Fprintln(r.o.Progress, line)
	}
}

// say prints a line of its own; an empty one only ends the progress line.
func (r *run) say(line string) {
	switch {
	case r.o.Terminal:
		fmt.Fprintf(r.o.Progress, "\r\x1b[K")
		if line != "" {
			fmt.Fprintln(r.o.Progress, line)
		}
	case line != "":
		fmt.Fprintln(r.o.Progress, line)
	}
}
