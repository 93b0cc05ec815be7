package env

import (
	"context"
	"fmt"
	"io"
)

// Status prints what exists, for a person.
func (e *Env) Status(ctx context.Context, w io.Writer) error {
	daemon := "down"
	if p := e.daemonProcess(); p.alive() {
		daemon = fmt.Sprintf("pid %d", p.Pid)
	}
	fmt.Fprintf(w, "containerd  %s\nnamespace   %s\nsocket      %s\nlog         %s\nconfig      %s\n",
		daemon, e.Namespace, e.Address, e.logFile(), e.configFile())
	for _, name := range e.findRemains().netns {
		fmt.Fprintf(w, "netns       %s/%s\n", netnsDir, name)
	}
	if daemon == "down" {
		return nil
	}
	tasks, err := e.Ctr(ctx, "task", "ls")
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, tasks)
	return err
}
