package session

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBegun: a transaction in which nothing was done is told from one in which something
// was.
func TestBegun(t *testing.T) {
	queued := talk{command("INCR", "a"), "+QUEUED\r\n"}
	for what, test := range map[string]struct {
		list []talk
		want bool
	}{
		"nothing is open":          {[]talk{startup, plainly}, false},
		"begun":                    {[]talk{startup, plainly, begin}, true},
		"with options":             {[]talk{startup, inside("/* x */ START TRANSACTION ISOLATION LEVEL SERIALIZABLE;")}, true},
		"and something prepared":   {[]talk{startup, begin, within(prepare("a", "SELECT 1"))}, true},
		"and something done":       {[]talk{startup, begin, inside("UPDATE t SET n = 1")}, false},
		"both at once":             {[]talk{startup, inside("BEGIN; UPDATE t SET n = 1")}, false},
		"one after the other":      {[]talk{startup, {begin.wrote + inside("UPDATE t SET n = 1").wrote, begin.heard + begin.heard}}, false},
		"it has failed":            {[]talk{startup, begin, {prepare("a", "SELECT 1").wrote, message('Z', "E")}}, false},
		"a second one":             {[]talk{startup, begin, inside("UPDATE t SET n = 1"), commit, begin}, true},
		"Redis, nothing is open":   {[]talk{hello, redisTalk("INCR", "a")}, false},
		"Redis, begun":             {[]talk{hello, redisTalk("MULTI")}, true},
		"Redis, something done":    {[]talk{hello, redisTalk("MULTI"), queued}, false},
		"Redis, something watched": {[]talk{hello, redisTalk("WATCH", "a"), redisTalk("MULTI")}, false},
	} {
		t.Run(what, func(t *testing.T) {
			for _, size := range []int{1, 1 << 20} {
				tr, _ := play(t, 1, size, test.list...)
				require.False(t, tr.Lost())
				require.Equal(t, test.want, tr.Begun(tr.end), "pieces of %d", size)
			}
		})
	}
}

// TestBegins: the same of what the server has not answered.
func TestBegins(t *testing.T) {
	for what, test := range map[string]struct {
		list []talk
		last string
		want bool
	}{
		"a transaction":        {[]talk{startup}, begin.wrote, true},
		"a statement":          {[]talk{startup}, prepare("a", "SELECT 1").wrote, true},
		"a session":            {nil, startup.wrote, true},
		"what changes data":    {[]talk{startup}, plainly.wrote, false},
		"what does so at last": {[]talk{startup, begin}, commit.wrote, false},
		"both":                 {[]talk{startup}, begin.wrote + plainly.wrote, false},
		"that executed":        {[]talk{startup, prepare("a", "SELECT 1")}, bound("a").wrote, false},
		"Redis's":              {[]talk{hello}, command("MULTI"), true},
		"Redis's settings":     {[]talk{hello}, command("SELECT", "1") + command("CLIENT", "SETNAME", "x"), true},
		"Redis's data":         {[]talk{hello}, command("INCR", "a"), false},
		"Redis's both":         {[]talk{hello}, command("INCR", "a") + command("SELECT", "1"), false},
	} {
		t.Run(what, func(t *testing.T) {
			tr, _ := play(t, 1, 1<<20, append(test.list, talk{wrote: test.last})...)
			require.False(t, tr.Lost())
			require.False(t, tr.Resting())
			require.Equal(t, test.want, tr.Begins())
		})
	}
}

// TestWorked: what changes its session and does something else, too, is told from what only
// prepares it.
func TestWorked(t *testing.T) {
	atOnce := func(name, sql string) talk {
		return talk{strings.TrimSuffix(prepare(name, sql).wrote, message('S', "")) + bound(name).wrote, message('Z', "I")}
	}
	insert := "INSERT INTO t VALUES ($1)"
	for what, test := range map[string]struct {
		list []talk
		want bool
	}{
		"a session begins":               {[]talk{startup}, false},
		"with a password":                {[]talk{{startup.wrote, message('R', "\x00\x00\x00\x03")}, {message('p', "secret\x00"), startup.heard}}, false},
		"a statement is prepared":        {[]talk{startup, plainly, prepare("a", insert)}, false},
		"closed":                         {[]talk{startup, prepare("a", insert), {message('C', "Sa\x00") + message('S', ""), message('Z', "I")}}, false},
		"without a name":                 {[]talk{startup, prepare("", insert)}, false},
		"and executed":                   {[]talk{startup, prepare("", insert), bound("")}, true},
		"prepared and executed at once":  {[]talk{startup, prepare("b", "SELECT 1"), atOnce("a", insert)}, true},
		"something is set":               {[]talk{startup, plainly, query("SET a = 1")}, false},
		"the same in parts":              {[]talk{startup, atOnce("", "SET a = 1")}, false},
		"and something done":             {[]talk{startup, prepare("b", insert), {strings.TrimSuffix(atOnce("", "SET a = 1").wrote, message('S', "")) + bound("b").wrote, message('Z', "I")}}, true},
		"Redis sets something":           {[]talk{hello, redisTalk("INCR", "a"), redisTalk("SELECT", "1")}, false},
		"Redis, and something else":      {[]talk{hello, {command("SELECT", "1") + command("INCR", "a"), "+OK\r\n:1\r\n"}}, true},
		"Redis, the other way round":     {[]talk{hello, {command("INCR", "a") + command("SELECT", "1"), ":1\r\n+OK\r\n"}}, true},
		"Redis, in more than one packet": {[]talk{hello, {command("INCR", "a"), ""}, {command("SELECT", "1"), ":1\r\n+OK\r\n"}}, true},
	} {
		t.Run(what, func(t *testing.T) {
			for _, size := range []int{1, 1 << 20} {
				tr, _ := play(t, 1, size, test.list...)
				require.False(t, tr.Lost())
				require.Equal(t, test.want, tr.Worked(tr.end), "pieces of %d", size)
			}
		})
	}
}

// TestUncommitted: a transaction that the server may have been asked to commit is told from
// one that it was not.
func TestUncommitted(t *testing.T) {
	update, queued := inside("UPDATE t SET n = 1"), talk{command("INCR", "a"), "+QUEUED\r\n"}
	for what, test := range map[string]struct {
		list []talk
		want bool
	}{
		"nothing is open":            {[]talk{startup, plainly}, false},
		"begun":                      {[]talk{startup, begin}, true},
		"begun, not answered":        {[]talk{startup, {wrote: begin.wrote}}, false},
		"something done":             {[]talk{startup, begin, update}, true},
		"the same, not answered":     {[]talk{startup, begin, {wrote: update.wrote}}, true},
		"an execution, not answered": {[]talk{startup, prepare("a", "INSERT INTO t VALUES (1)"), begin, {wrote: bound("a").wrote}}, true},
		"that of anything":           {[]talk{startup, prepare("a", "COMMIT"), begin, {wrote: bound("a").wrote}}, false},
		"committed":                  {[]talk{startup, begin, update, commit}, false},
		"the same, not answered yet": {[]talk{startup, begin, update, {wrote: commit.wrote}}, false},
		"in one go":                  {[]talk{startup, begin, {wrote: query("UPDATE t SET n = 1; COMMIT").wrote}}, false},
		"behind something else":      {[]talk{startup, {plainly.wrote + begin.wrote, plainly.heard + begin.heard}}, false},
		"the same, later on":         {[]talk{startup, {plainly.wrote + begin.wrote, plainly.heard + begin.heard}, update}, false},
		"and in the next":            {[]talk{startup, {plainly.wrote + begin.wrote, plainly.heard + begin.heard}, commit, begin, update}, true},
		"Redis, begun":               {[]talk{hello, redisTalk("MULTI"), queued}, true},
		"Redis, behind another":      {[]talk{hello, {command("INCR", "a") + command("MULTI"), ":1\r\n+OK\r\n"}, queued}, false},
		"Redis, in the next":         {[]talk{hello, {command("INCR", "a") + command("MULTI"), ":1\r\n+OK\r\n"}, {command("EXEC"), "*0\r\n"}, redisTalk("MULTI"), queued}, true},
		"Redis, executed":            {[]talk{hello, redisTalk("MULTI"), queued, {wrote: command("EXEC")}}, false},
		"Redis, nothing is open":     {[]talk{hello, redisTalk("INCR", "a")}, false},
	} {
		t.Run(what, func(t *testing.T) {
			tr, _ := play(t, 1, 1<<20, test.list...)
			require.False(t, tr.Lost())
			require.Equal(t, test.want, tr.Uncommitted())
		})
	}
}

// TestOpening: what begins a session is known by what it says, in any order.
func TestOpening(t *testing.T) {
	tr, _ := play(t, 1, 100, talk{message(0, "\x00\x03\x00\x00user\x00a\x00database\x00b\x00\x00"), startup.heard})
	_, played := play(t, 1, 100, talk{message(0, "\x00\x03\x00\x00database\x00b\x00user\x00a\x00\x00"), startup.heard})
	for text, want := range map[string]bool{
		message(0, "\x00\x03\x00\x00database\x00b\x00user\x00a\x00\x00"): true,
		message(0, "\x00\x03\x00\x00database\x00a\x00user\x00b\x00\x00"): false,
		message(0, "\x04\xd2\x16\x2f"):                                   false,
		begin.wrote:                                                      false,
	} {
		class, ok := tr.Opening([]byte(text))
		require.Equal(t, want, ok && class == played, "%q", text)
	}
	redis, _ := play(t, 1, 100, hello)
	_, ok := redis.Opening([]byte(hello.wrote))
	require.False(t, ok)
}

// TestFarewell: the end of a session is known.
func TestFarewell(t *testing.T) {
	tr, _ := play(t, 1, 100, startup)
	require.False(t, tr.Over())
	tr, _ = play(t, 1, 1, startup, talk{wrote: message('X', "")})
	require.True(t, tr.Over())
	require.Equal(t, message('X', ""), string(tr.Farewell()))
	redis, _ := play(t, 1, 100, hello)
	require.Nil(t, redis.Farewell())
}
