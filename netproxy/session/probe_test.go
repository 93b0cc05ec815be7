package session

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProbe: what is answered in a server's place does nothing there.
func TestProbe(t *testing.T) {
	r, _ := play(t, 1, 100, hello)
	p, _ := play(t, 1, 100, startup)
	for text, is := range map[string]bool{
		"-- ping": true, "": true, ";": true, " /* x */ ; -- y": true, "--\n--": true,
		"-- ping\nSELECT 1": false, "SELECT 1": false, "/* x": false, "/* /* x */ DELETE FROM t */": false, "-": false,
		"--\x00DELETE FROM t": false, "/*/": false, "--\rSELECT 1": false,
	} {
		if answer := p.Probe([]byte(message('Q', text+"\x00"))); is {
			require.Equal(t, message('I', "")+message('Z', "I"), string(answer), "%q", text)
		} else {
			require.Nil(t, answer, "%q", text)
		}
	}
	for _, text := range []string{"", "Q", begin.wrote, startup.wrote, message('Q', ""), message('Q', "\x00")[:5], message('Q', "\x00") + message('Q', "\x00")} {
		require.Nil(t, p.Probe([]byte(text)), "%q", text)
	}
	require.Equal(t, "+PONG\r\n", string(r.Probe([]byte(command("ping")))))
	for _, text := range []string{"", "PING\r\n", command("PING", "x"), command("PING") + command("PING"), command("GET", "PING"), command("PING")[:12]} {
		require.Nil(t, r.Probe([]byte(text)), "%q", text)
	}
}

// TestProbes: questions are remembered if they are asked while nothing else is.
func TestProbes(t *testing.T) {
	ping := query("-- ping")
	p, _ := play(t, 1, 100, startup, ping, plainly, ping)
	require.Equal(t, [][]byte{[]byte(ping.wrote)}, p.Probes())
	p, _ = play(t, 1, 100, startup, talk{plainly.wrote, ""}, ping)
	require.Empty(t, p.Probes())
	many := []talk{startup}
	for i := range 2 * probesKept {
		many = append(many, query("--"+string(rune('a'+i))))
	}
	p, _ = play(t, 1, 100, many...)
	require.Len(t, p.Probes(), probesKept)
	require.LessOrEqual(t, p.Size(), 64<<10)
}

// TestGreetings: what says who asks is remembered if it is said while nothing else is.
func TestGreetings(t *testing.T) {
	name, version := command("CLIENT", "setinfo", "LIB-NAME", "x"), command("CLIENT", "SETINFO", "LIB-VER", "1")
	both := talk{name + version, "+OK\r\n-ERR x\r\n"}
	notify := talk{command("CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "none"), "-ERR x\r\n"}
	r, was := play(t, 1, 1<<20, hello, redisTalk("CLIENT", "SETNAME", "a"), both, notify, redisTalk("INCR", "a"), both)
	_, plain := play(t, 2, 1<<20, hello, redisTalk("CLIENT", "SETNAME", "a"))
	require.Equal(t, plain, was)
	require.Equal(t, [][]byte{[]byte(both.wrote), []byte(notify.wrote)}, r.Greetings())
	for what, list := range map[string][]talk{
		"with work":      {hello, {name + command("INCR", "a"), "+OK\r\n:1\r\n"}},
		"behind work":    {hello, {command("INCR", "a"), ""}, {name, ":1\r\n+OK\r\n"}},
		"in pieces":      {hello, {name[:9], ""}, {name[9:], "+OK\r\n"}},
		"sets the state": {hello, redisTalk("CLIENT", "SETNAME", "a")},
		"too long":       {hello, redisTalk("CLIENT", "SETINFO", "LIB-NAME", strings.Repeat("x", probeSize))},
	} {
		r, _ := play(t, 1, 1<<20, list...)
		require.Empty(t, r.Greetings(), what)
		require.False(t, r.Lost(), what)
	}
	many := []talk{hello}
	for i := range 2 * probesKept {
		many = append(many, redisTalk("CLIENT", "SETINFO", "LIB-NAME", string(rune('a'+i))))
	}
	r, _ = play(t, 1, 1<<20, many...)
	require.Len(t, r.Greetings(), probesKept)
}
