package config

import (
	"errors"
	"testing"
)

// FuzzContainer: whatever a value is, either it is refused with an error of
// this package, or writing what was understood gives the same Config again.
func FuzzContainer(f *testing.F) {
	for _, k := range keys() {
		f.Add(k.name, k.def)
	}
	f.Add(KeyExcludePorts, "1-65535,80")
	f.Add(KeyExcludeCIDRs, "in:10.0.0.0/8,out:fd00::1")
	f.Add(KeySafeVolumes, "/a,/b")
	f.Add(KeyInterval, "off")
	f.Add(KeyCron, "CRON_TZ=UTC 1-5/2,7 */3 ? jan-mar sun")
	f.Add(KeyCron, "TZ=0")
	f.Add(KeyOnPressure, "memory=90,psi=20")
	f.Add("crsc.io/x", "y")
	node, err := Parse(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		c, err := node.Container(map[string]string{name: value})
		if err != nil {
			for _, s := range []error{ErrUnknownKey, ErrMalformed, ErrConflict} {
				if errors.Is(err, s) {
					return
				}
			}
			t.Fatalf("an error without a sentinel: %v", err)
		}
		var again Budget
		if again, err = parseBudget(c.Budget.String()); err != nil || again != c.Budget {
			t.Fatalf("budget %+v is written as %s, which is read as %+v: %v", c.Budget, c.Budget, again, err)
		}
		if n, err := ParseSize(FormatSize(c.JournalSize)); err != nil || n != c.JournalSize {
			t.Fatalf("size %d is read as %d: %v", c.JournalSize, n, err)
		}
		for i, r := range c.ExcludeIn.Ports {
			if r.First < 1 || r.First > r.Last || i > 0 && int(r.First) <= int(c.ExcludeIn.Ports[i-1].Last)+1 {
				t.Fatalf("ports %v are not sorted and apart", c.ExcludeIn.Ports)
			}
		}
	})
}

// FuzzParse: no node file makes Parse panic, and what it accepts it can apply.
func FuzzParse(f *testing.F) {
	f.Add([]byte(strictNode))
	f.Add([]byte("[bounds.x]\nmin='1'"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Parse(data)
		if err != nil {
			return
		}
		if _, err := n.Container(nil); err != nil {
			t.Fatalf("accepted defaults are refused: %v", err)
		}
	})
}
