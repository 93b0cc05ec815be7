package main

import (
	"errors"
	"fmt"
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

// find returns the shim of the container with an ID, or with one that begins so and
// no other does.
//
// Errors: errNoContainer.
func (t *target) find(id string) (*control.Client, error) {
	p, err := t.place(id)
	return &control.Client{Dir: p.Dir}, err
}

// place returns where that container's files are, also after its shim has gone.
//
// Errors: errNoContainer.
func (t *target) place(id string) (status.Place, error) {
	root, err := stateDir(t.dir)
	if err != nil {
		return status.Place{}, err
	}
	list, err := status.Places(root)
	if err != nil {
		return status.Place{}, err
	}
	var exact, begins []status.Place
	for _, p := range list {
		if t.namespace != "" && p.Namespace != t.namespace {
			continue
		}
		if p.ID == id {
			exact = append(exact, p)
		} else if strings.HasPrefix(p.ID, id) {
			begins = append(begins, p)
		}
	}
	if len(exact) == 0 {
		exact = begins
	}
	switch len(exact) {
	case 0:
		return status.Place{}, fmt.Errorf("%w with crsc.io/checkpoint-restore below %s: %q; crsc ps lists them", errNoContainer, root, id)
	case 1:
		return exact[0], nil
	}
	var names []string
	for _, p := range exact {
		names = append(names, p.Namespace+"/"+p.ID)
	}
	return status.Place{}, fmt.Errorf("%q may be %s: say more of it, or the --namespace", id, strings.Join(names, " or "))
}
