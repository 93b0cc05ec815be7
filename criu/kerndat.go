package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CRIU asks the kernel what it can do, which takes it 60 ms or more, and keeps
// the answers in kerndatFile if that is on a tmpfs. A CRIU whose real user is
// not root cannot ask: libnftables ends a process with differing IDs. So the
// answers are taken along from Probe, and put in place in a mount namespace of
// that CRIU's own, where no other build of CRIU replaces them.

// kerndatFile is where CRIU looks for them (KDAT_RUNDIR of its Makefile).
const kerndatFile = "/run/criu.kdat"

// askKernel runs fn, which runs CRIU with its answers kept, and writes them to
// file, which may itself lie in the directory that is hidden meanwhile.
func askKernel(file string, fn func() error) error {
	var answers []byte
	err := onThread(func() error {
		if err := hideKerndat(); err != nil {
			return err
		}
		if err := fn(); err != nil {
			return err
		}
		var err error
		if answers, err = os.ReadFile(kerndatFile); err != nil {
			return fmt.Errorf("criu kept no answers of the kernel: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return replaceFile(file, answers)
}

// replaceFile writes a private file that is whole whenever it is read.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// haveAnswers puts a copy of file in the place of kerndatFile for the calling
// thread. It does not mount file itself there: another CRIU that replaces the
// host's kerndatFile would take that mount away, in every namespace.
func haveAnswers(file string) error {
	answers, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := hideKerndat(); err != nil {
		return err
	}
	return os.WriteFile(kerndatFile, answers, 0o600)
}

// hideKerndat gives the calling thread a mount namespace with an empty tmpfs
// where the host's kerndatFile is.
func hideKerndat() error {
	if err := privateMounts(); err != nil {
		return err
	}
	dir := filepath.Dir(kerndatFile)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	return nil
}

// privateMounts moves the calling thread into a mount namespace of its own, in
// which mounts of the host still appear and vanish.
func privateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	return nil
}
