package criu

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // rules for devices can't be set without it
	"github.com/opencontainers/cgroups/systemd"
)

// scope is the unit of systemd in which a container lives whose runtime options
// have SystemdCgroup. systemd removes it, with the cgroups and all limits, at some
// moment after the last process has ended, so that it has to be made again for
// those that are restored.
type scope struct {
	group cgroups.Cgroup
	paths map[string]string // by controller
}

// scope returns nil if systemd does not manage the container's cgroups. What
// annotations of the form org.systemd.property.* said is not in runc's record.
func (s *runcState) scope() (*scope, error) {
	var config struct {
		Cgroups json.RawMessage `json:"cgroups"`
	}
	u := &scope{}
	if err := errors.Join(s.get("config", &config), s.get("cgroup_paths", &u.paths)); err != nil {
		return nil, err
	}
	if len(config.Cgroups) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(config.Cgroups, &u.group); err != nil {
		return nil, fmt.Errorf("state of runc %s: cgroups: %w", s.path, err)
	}
	if !u.group.Systemd {
		return nil, nil
	}
	if u.group.Resources == nil {
		u.group.Resources = &cgroups.Resources{}
	}
	return u, nil
}

func (u *scope) manager() (cgroups.Manager, error) {
	if cgroups.IsCgroup2UnifiedMode() {
		return systemd.NewUnifiedManager(&u.group, u.paths[""])
	}
	return systemd.NewLegacyManager(&u.group, maps.Clone(u.paths)) // which Destroy empties
}

// renew makes the unit again, with the limits that it had and the process in it.
// What is left of the former one is removed: systemd may just be about to do so.
func (u *scope) renew(pid int) error {
	former, err := u.manager()
	if err == nil {
		err = former.Destroy()
	}
	if err != nil {
		return fmt.Errorf("remove what is left of the unit of systemd: %w", err)
	}
	m, err := u.manager()
	if err == nil {
		err = m.Apply(pid)
	}
	if err != nil {
		return fmt.Errorf("make the unit of systemd again: %w", err)
	}
	if err := m.Set(u.group.Resources); err != nil {
		return fmt.Errorf("limits of the unit of systemd: %w", err)
	}
	return nil
}
