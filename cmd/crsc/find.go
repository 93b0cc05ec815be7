package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/status"
)

var errNoContainer = errors.New("no such container")

// target is how the commands that act on one container name it.
type target struct{ dir, namespace string }

func (t *target) addFlags(cmd *cobra.Command) {
	addStateDir(cmd, &t.dir)
	cmd.Flags().StringVarP(&t.namespace, "namespace", "n", "", "containerd namespace (default: all of them)")
}

// find returns the container with an ID, or with one that begins so and no
// other does.
//
// Errors: errNoContainer.
func (t *target) find(id string) (*status.Status, *control.Client, error) {
	root, err := stateDir(t.dir)
	if err != nil {
		return nil, nil, err
	}
	list, err := status.List(root)
	if err != nil {
		return nil, nil, err
	}
	var exact, begins []*status.Status
	for _, s := range list {
		if t.namespace != "" && s.Namespace != t.namespace {
			continue
		}
		if s.ID == id {
			exact = append(exact, s)
		} else if strings.HasPrefix(s.ID, id) {
			begins = append(begins, s)
		}
	}
	if len(exact) == 0 {
		exact = begins
	}
	switch len(exact) {
	case 0:
		return nil, nil, fmt.Errorf("%w with crsc.io/checkpoint-restore: %q; crsc ps lists them", errNoContainer, id)
	case 1:
		s := exact[0]
		return s, &control.Client{Dir: filepath.Join(root, s.Namespace, s.ID)}, nil
	}
	var names []string
	for _, s := range exact {
		names = append(names, s.Namespace+"/"+s.ID)
	}
	return nil, nil, fmt.Errorf("%q may be %s: say more of it, or the --namespace", id, strings.Join(names, " or "))
}
