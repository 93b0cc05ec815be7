package criu

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseMount: the kernel shows any path in a table of mounts, and nothing in it
// is taken for another field.
func FuzzParseMount(f *testing.F) {
	for _, path := range []string{"/data", "/a b", "/a\u00a0b", "/a\rb", `/a\040b`, "/a - b", "/\u2028", "/x\v\f\n\t"} {
		f.Add(path)
	}
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	f.Fuzz(func(t *testing.T, path string) {
		m, ok := parseMount("36 35 98:0 " + escape.Replace("/"+path) + " " + escape.Replace("/in"+path) + " ro,nosuid shared:7 master:1 - ext4 /dev/sda " + escape.Replace(path))
		require.True(t, ok)
		require.Equal(t, "/"+path, m.root)
		require.Equal(t, "/in"+path, m.target)
		require.True(t, m.ro && m.shared && m.slave && m.fstype == "ext4" && m.device == "98:0", "%+v", m)
	})
}
