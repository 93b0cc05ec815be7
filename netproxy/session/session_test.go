package session

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// talk is what one end says, or the other.
type talk struct{ wrote, heard string }

func command(args ...string) string {
	s := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		s += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	return s
}

// message is one of PostgreSQL's; kind 0: it has none.
func message(kind byte, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	if kind != 0 {
		b = append([]byte{kind}, b...)
	}
	return string(b) + body
}

// play follows a session, in pieces of any size, and returns its class and whether it
// rests.
func play(t *testing.T, id uint32, size int, list ...talk) (*Tracker, Class) {
	t.Helper()
	tr := Sniff(id, []byte(list[0].wrote))
	require.NotNil(t, tr)
	offset := uint64(0)
	for _, k := range list {
		for s := k.wrote; s != ""; {
			n := min(len(s), size)
			tr.Wrote(offset, []byte(s[:n]))
			offset, s = offset+uint64(n), s[n:]
		}
		for s := k.heard; s != ""; {
			n := min(len(s), size)
			tr.Heard([]byte(s[:n]))
			s = s[n:]
		}
	}
	c, ok := tr.At(offset)
	require.True(t, ok)
	return tr, c
}

func redisTalk(args ...string) talk { return talk{command(args...), "+OK\r\n"} }

func refusal(args ...string) talk { return talk{command(args...), "-ERR x\r\n"} }

var hello = talk{command("HELLO", "3"), "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n"}

func TestRedis(t *testing.T) {
	long := strings.Repeat("x", 3*redisHead)
	for what, test := range map[string]struct {
		a, b []talk
		same bool
	}{
		"commands leave no trace":    {[]talk{hello, redisTalk("INCR", "a")}, []talk{hello, redisTalk("SET", "b", "1"), redisTalk("EVAL", "return 1", "0")}, true},
		"a large value":              {[]talk{hello, redisTalk("SET", "b", long)}, []talk{hello}, true},
		"another database":           {[]talk{hello, redisTalk("SELECT", "1")}, []talk{hello, redisTalk("SELECT", "2")}, false},
		"back to the database":       {[]talk{redisTalk("SELECT", "1"), redisTalk("SELECT", "2")}, []talk{redisTalk("SELECT", "2")}, true},
		"in any order":               {[]talk{redisTalk("SELECT", "1"), redisTalk("CLIENT", "SETNAME", "x")}, []talk{redisTalk("CLIENT", "SETNAME", "x"), redisTalk("SELECT", "1")}, true},
		"another user":               {[]talk{redisTalk("AUTH", "a", "secret")}, []talk{redisTalk("AUTH", "b", "secret")}, false},
		"a database there isn't":     {[]talk{redisTalk("SELECT", "1"), refusal("SELECT", "99")}, []talk{refusal("SELECT", "99")}, false},
		"that does not last":         {[]talk{redisTalk("SELECT", "1"), refusal("SELECT", "99")}, []talk{redisTalk("SELECT", "1"), redisTalk("INCR", "a"), refusal("SELECT", "99")}, true},
		"in one go":                  {[]talk{{command("SELECT", "1") + command("SELECT", "99"), "+OK\r\n-ERR x\r\n"}}, []talk{{command("SELECT", "1") + command("SELECT", "99"), "-ERR x\r\n+OK\r\n"}}, false},
		"an error of another":        {[]talk{{command("SELECT", "1") + command("INCR", "a"), "+OK\r\n-ERR x\r\n"}}, []talk{redisTalk("SELECT", "1")}, true},
		"an error in an answer":      {[]talk{{command("SELECT", "1"), "*1\r\n-ERR x\r\n"}}, []talk{redisTalk("SELECT", "1")}, true},
		"in a transaction":           {[]talk{hello, redisTalk("MULTI")}, []talk{hello}, false},
		"in the same transaction":    {[]talk{hello, redisTalk("MULTI"), {command("INCR", "a"), "+QUEUED\r\n"}}, []talk{hello, redisTalk("GET", "x"), redisTalk("MULTI"), {command("INCR", "a"), "+QUEUED\r\n"}}, true},
		"in another transaction":     {[]talk{hello, redisTalk("MULTI"), {command("INCR", "a"), "+QUEUED\r\n"}}, []talk{hello, redisTalk("MULTI"), {command("INCR", "b"), "+QUEUED\r\n"}}, false},
		"after one":                  {[]talk{hello, redisTalk("MULTI"), redisTalk("INCR", "a"), {command("EXEC"), "*1\r\n:1\r\n"}}, []talk{hello}, true},
		"who asks is no state":       {[]talk{hello, {command("CLIENT", "MAINT_NOTIFICATIONS", "ON"), "-ERR x\r\n"}, redisTalk("CLIENT", "SETINFO", "LIB-NAME", "x")}, []talk{hello}, true},
		"but in a transaction":       {[]talk{hello, redisTalk("MULTI"), redisTalk("CLIENT", "SETINFO", "LIB-NAME", "x"), {command("EXEC"), "*1\r\n+OK\r\n"}}, []talk{hello}, false},
		"it watches":                 {[]talk{hello, redisTalk("WATCH", "a")}, []talk{hello}, false},
		"subscribers are unlike all": {[]talk{hello, redisTalk("SUBSCRIBE", "a")}, []talk{hello, redisTalk("SUBSCRIBE", "a")}, false},
		"it watches still":           {[]talk{hello, redisTalk("WATCH", "a"), {command("EXEC"), "-ERR EXEC without MULTI\r\n"}}, []talk{hello}, false},
		"what is pushed":             {[]talk{hello, {command("GET", "a"), ">1\r\n+x\r\n$-1\r\n"}}, []talk{hello, {command("GET", "a"), "$-1\r\n"}}, false},
		"no protocol at all":         {[]talk{hello, {"nonsense\r\n", ""}}, []talk{hello}, false},
	} {
		t.Run(what, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				_, a := play(t, 1, size, test.a...)
				_, b := play(t, 2, 1<<20, test.b...)
				require.Equal(t, test.same, a == b, "pieces of %d", size)
			}
		})
	}
}

func TestRedisRestsWhenAllIsAnswered(t *testing.T) {
	for answer, ends := range map[string]bool{
		"$3\r\nabc\r\n": true, "$-1\r\n": true, ":1\r\n": true, "_\r\n": true, "*0\r\n": true, "-ERR x\r\n": true,
		"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n": true, "%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n": true,
		"$3\r\nabc": false, "*2\r\n:1\r\n": false, "%1\r\n+a\r\n": false, "+O": false,
	} {
		tr, _ := play(t, 1, 1, talk{command("X"), answer})
		require.Equal(t, ends, tr.Resting(), "%q", answer)
		require.False(t, tr.Lost())
	}
}

var (
	startup = talk{message(0, "\x00\x03\x00\x00user\x00postgres\x00\x00"), message('R', "\x00\x00\x00\x00") + message('K', "12345678") + message('Z', "I")}
	plainly = talk{message('Q', "UPDATE t SET n = n + 1\x00"), message('C', "UPDATE 1\x00") + message('Z', "I")}
	begin   = talk{message('Q', "begin\x00"), message('C', "BEGIN\x00") + message('Z', "T")}
	commit  = talk{message('Q', "commit\x00"), message('C', "COMMIT\x00") + message('Z', "I")}
)

func query(sql string) talk  { return talk{message('Q', sql+"\x00"), message('Z', "I")} }
func inside(sql string) talk { return talk{message('Q', sql+"\x00"), message('Z', "T")} }

func within(k talk) talk {
	k.heard = strings.Replace(k.heard, message('Z', "I"), message('Z', "T"), 1)
	return k
}

func prepare(name, sql string) talk {
	return talk{message('P', name+"\x00"+sql+"\x00\x00\x00") + message('D', "S"+name+"\x00") + message('S', ""), message('1', "") + message('Z', "I")}
}

// bound is a Bind and an Execute of a statement.
func bound(statement string) talk {
	return talk{message('B', "\x00"+statement+"\x00\x00\x00\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + message('S', ""), message('2', "") + message('Z', "I")}
}

func refused(k talk) talk { return talk{k.wrote, message('E', "SERROR\x00\x00") + message('Z', "I")} }

func TestPostgres(t *testing.T) {
	for what, test := range map[string]struct {
		a, b []talk
		same bool
	}{
		"statements leave no trace":    {[]talk{startup, plainly}, []talk{startup, query("INSERT INTO t VALUES (1)"), query("/* x */ SELECT 1 -- y")}, true},
		"another user":                 {[]talk{startup}, []talk{{strings.Replace(startup.wrote, "postgres", "someone.", 1), startup.heard}}, false},
		"begun in any order":           {[]talk{{message(0, "\x00\x03\x00\x00user\x00a\x00database\x00b\x00\x00"), startup.heard}}, []talk{{message(0, "\x00\x03\x00\x00database\x00b\x00user\x00a\x00\x00"), startup.heard}}, true},
		"prepared in any order":        {[]talk{startup, prepare("a", "SELECT 1"), prepare("b", "SELECT 2")}, []talk{startup, prepare("b", "SELECT 2"), prepare("a", "SELECT 1")}, true},
		"prepared differently":         {[]talk{startup, prepare("a", "SELECT 1")}, []talk{startup, prepare("a", "SELECT 2")}, false},
		"closed":                       {[]talk{startup, prepare("a", "SELECT 1"), {message('C', "Sa\x00") + message('S', ""), message('Z', "I")}}, []talk{startup}, true},
		"without a name":               {[]talk{startup, prepare("", "SELECT 1"), bound("")}, []talk{startup}, true},
		"without a name, to be used":   {[]talk{startup, prepare("", "SELECT 1")}, []talk{startup}, false},
		"without a name, used twice":   {[]talk{startup, prepare("", "SELECT 1"), bound(""), bound("")}, []talk{startup}, false},
		"prepared in vain":             {[]talk{startup, refused(prepare("a", "SELECT 1"))}, []talk{startup, prepare("a", "SELECT 1")}, false},
		"set in vain":                  {[]talk{startup, refused(query("SET a TO b"))}, []talk{startup, query("SET a TO b")}, false},
		"an error":                     {[]talk{startup, refused(plainly)}, []talk{startup}, true},
		"in a transaction":             {[]talk{startup, begin}, []talk{startup}, false},
		"in the same":                  {[]talk{startup, begin, inside("UPDATE t SET n = 1")}, []talk{startup, plainly, begin, inside("UPDATE t SET n = 1")}, true},
		"in another":                   {[]talk{startup, begin, inside("UPDATE t SET n = 1")}, []talk{startup, begin, inside("UPDATE t SET n = 2")}, false},
		"prepared in it":               {[]talk{startup, begin, within(prepare("a", "SELECT 1")), inside("UPDATE t SET n = 1")}, []talk{startup, prepare("a", "SELECT 1"), begin, inside("UPDATE t SET n = 1")}, true},
		"it has failed":                {[]talk{startup, begin, {query("x").wrote, message('Z', "E")}}, []talk{startup, begin, inside("x")}, false},
		"after one":                    {[]talk{startup, begin, inside("UPDATE t SET n = 1"), commit}, []talk{startup}, true},
		"settings":                     {[]talk{startup, query("SET search_path TO a")}, []talk{startup}, false},
		"the same settings":            {[]talk{startup, query("SET search_path TO a")}, []talk{startup, plainly, query("SET search_path TO a")}, true},
		"settings that may be undone":  {[]talk{startup, begin, inside("SET search_path TO a"), commit}, []talk{startup, begin, inside("SET search_path TO a"), commit}, false},
		"settings of a pipeline":       {[]talk{startup, {begin.wrote + query("SET a = 1").wrote, message('Z', "T") + message('Z', "T")}, commit}, []talk{startup, query("SET a = 1")}, false},
		"settings of one message":      {[]talk{startup, {message('P', "\x00BEGIN\x00\x00\x00") + strings.TrimSuffix(bound("").wrote, message('S', "")) + prepare("", "SET a = 1").wrote, message('Z', "T")}, commit}, []talk{startup, query("SET a = 1")}, false},
		"settings that are prepared":   {[]talk{startup, prepare("a", "SET b = 1")}, []talk{startup, prepare("a", "SET b = 1")}, false},
		"closed in vain":               {[]talk{startup, prepare("a", "SELECT 1"), refused(talk{message('C', "Sa\x00") + message('S', ""), ""})}, []talk{startup}, false},
		"locks of the session":         {[]talk{startup, query("SELECT pg_advisory_lock(1)")}, []talk{startup, query("SELECT pg_advisory_lock(1)")}, false},
		"it listens":                   {[]talk{startup, query("LISTEN a")}, []talk{startup, query("LISTEN a")}, false},
		"set by a function":            {[]talk{startup, query("SELECT set_config('a', 'b', false)")}, []talk{startup}, false},
		"a temporary table":            {[]talk{startup, query("CREATE TEMP TABLE a (n int)")}, []talk{startup}, false},
		"two statements, one of which": {[]talk{startup, query("BEGIN; SET a = 1")}, []talk{startup, query("BEGIN; SET a = 1")}, false},
		"encrypted":                    {[]talk{{message(0, "\x04\xd2\x16\x2f"), "S"}}, []talk{{message(0, "\x04\xd2\x16\x2f"), "S"}}, false},
		"encryption declined":          {[]talk{{message(0, "\x04\xd2\x16\x2f"), "N"}, startup}, []talk{startup}, true},
	} {
		t.Run(what, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				_, a := play(t, 1, size, test.a...)
				_, b := play(t, 2, 1<<20, test.b...)
				require.Equal(t, test.same, a == b, "pieces of %d", size)
			}
		})
	}
}

// TestUnanswered: an application that does not wait for answers has the class that the
// server will give it, where that is known.
func TestUnanswered(t *testing.T) {
	first, second := command("SELECT", "1"), command("GET", "a")
	half, rest := "+O", "K\r\n$1\r\nx\r\n"
	tr, all := play(t, 1, 1<<20, talk{first, half}, talk{second, rest})
	_, want := play(t, 2, 1<<20, redisTalk("SELECT", "1"))
	require.Equal(t, want, all)
	for offset, was := range map[int]Class{0: {}, len(first): want, len(first + second): want} {
		c, ok := tr.At(uint64(offset))
		require.True(t, ok)
		require.Equal(t, was, c, "%d", offset)
	}
	tr, all = play(t, 1, 1<<20, startup, talk{begin.wrote, begin.heard[:5]}, talk{begin.wrote, begin.heard[5:] + begin.heard}, commit)
	_, want = play(t, 2, 1<<20, startup)
	require.Equal(t, want, all)
	c, ok := tr.At(uint64(len(startup.wrote)))
	require.True(t, ok)
	require.Equal(t, want, c)
	_, ok = tr.At(uint64(len(startup.wrote + begin.wrote)))
	require.False(t, ok, "a transaction may be open")
	_, ok = tr.At(uint64(len(startup.wrote + begin.wrote + begin.wrote)))
	require.True(t, ok)
}

// TestPassword: who has not shown his password is like those who have shown as much, and
// unlike those who have not begun. Then it does not matter whether he was asked.
func TestPassword(t *testing.T) {
	asked := message('R', "\x00\x00\x00\x03")
	password := talk{message('p', "secret\x00"), startup.heard}
	tr, in := play(t, 1, 1<<20, talk{startup.wrote, asked}, password)
	_, want := play(t, 2, 1<<20, startup)
	require.Equal(t, want, in)
	at := func(tr *Tracker, offset int) Class {
		c, ok := tr.At(uint64(offset))
		require.True(t, ok)
		return c
	}
	begun := at(tr, len(startup.wrote))
	require.Zero(t, at(tr, 0))
	require.NotZero(t, begun)
	require.NotEqual(t, in, begun)
	other, _ := play(t, 3, 1<<20, talk{startup.wrote, asked}, talk{message('p', "another\x00"), asked}, password)
	require.Equal(t, begun, at(other, len(startup.wrote)))
	require.NotEqual(t, begun, at(other, len(startup.wrote+message('p', "another\x00"))))
}

// TestLongNames: what is kept of a session does not depend on the names in it.
func TestLongNames(t *testing.T) {
	tr, _ := play(t, 1, 1<<20, startup)
	offset, name := uint64(len(startup.wrote)), strings.Repeat("x", statementHead/2)
	for i := range 256 {
		k := prepare(fmt.Sprint(i, name), "SELECT 1")
		tr.Wrote(offset, []byte(k.wrote))
		tr.Heard([]byte(k.heard))
		offset += uint64(len(k.wrote))
	}
	require.False(t, tr.Lost())
	require.Less(t, tr.Size(), 1<<20)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tr.Lose()
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(before.HeapAlloc)-int64(after.HeapAlloc), int64(1<<20))
	require.Less(t, tr.Size(), 2*trackerSize)
}

// TestContinue: a session that goes on with another's server is that one from there on.
func TestContinue(t *testing.T) {
	a, was := play(t, 1, 100, redisTalk("SELECT", "1"))
	b, _ := play(t, 2, 100, redisTalk("SELECT", "1"), talk{command("GET", "a"), "$3\r\na"})
	a.Continue(b)
	require.False(t, a.Resting())
	a.Heard([]byte("bc\r\n"))
	require.True(t, a.Resting())
	c, ok := a.At(1000)
	require.True(t, ok)
	require.Equal(t, was, c)
	p, _ := play(t, 3, 100, startup)
	a.Continue(p)
	require.True(t, a.Lost(), "another protocol")
}

// TestWhole: requests are whole when their last byte is there, and not before.
func TestWhole(t *testing.T) {
	r, _ := play(t, 1, 100, hello)
	p, _ := play(t, 1, 100, startup)
	for _, test := range []struct {
		tr   *Tracker
		text string
	}{
		{r, command("INCR", "a")}, {r, command("MULTI") + command("INCR", "a") + command("EXEC")},
		{p, begin.wrote}, {p, startup.wrote}, {p, prepare("a", "SELECT 1").wrote}, {p, message('X', "")},
	} {
		require.Equal(t, len(test.text), test.tr.Whole([]byte(test.text)))
		require.Zero(t, test.tr.Whole([]byte(test.text[:len(test.text)-1])), "%q", test.text)
	}
	require.Equal(t, -1, r.Whole([]byte("GET / HTTP/1.1\r\n")))
	require.Equal(t, -1, p.Whole([]byte{'Q', 0, 0, 0, 1}))
	require.Nil(t, Sniff(1, []byte("GET / HTTP/1.1\r\n")))
}

// TestBare: what has nothing to do with prepared statements is asked alike of sessions
// that differ in them only.
func TestBare(t *testing.T) {
	tr, a := play(t, 1, 100, startup, prepare("a", "SELECT 1"))
	_, b := play(t, 2, 100, startup)
	_, c := play(t, 3, 100, startup, begin)
	require.True(t, tr.Bare([]byte(begin.wrote)))
	require.True(t, tr.Bare([]byte(startup.wrote)))
	require.False(t, tr.Bare([]byte(prepare("a", "SELECT 1").wrote)))
	require.True(t, a.Like(b, true))
	require.False(t, a.Like(b, false))
	require.False(t, a.Like(c, true))
	require.Equal(t, a, a.After(b, true))
	require.Equal(t, b, a.After(b, false))
}

// TestWhatIsForgotten: the memory for changes of class is bounded, and what is out of
// it has no class.
func TestWhatIsForgotten(t *testing.T) {
	list := []talk{startup}
	for range marksKept {
		list = append(list, begin, commit)
	}
	tr, _ := play(t, 1, 1<<20, list...)
	require.LessOrEqual(t, len(tr.marks), marksKept)
	_, ok := tr.At(uint64(len(startup.wrote)))
	require.False(t, ok)
}

// FuzzTracker: nothing that either end says does harm.
func FuzzTracker(f *testing.F) {
	f.Add([]byte(command("SET", "a", "b")), []byte("+OK\r\n"), uint64(1))
	f.Add([]byte(startup.wrote+begin.wrote), []byte(startup.heard+begin.heard), uint64(2))
	f.Fuzz(func(t *testing.T, wrote, heard []byte, seed uint64) {
		tr := Sniff(1, wrote)
		if tr == nil {
			return
		}
		tr.Whole(wrote)
		r := rand.New(rand.NewPCG(seed, 0))
		offset := uint64(0)
		for len(wrote)+len(heard) > 0 {
			n, k := r.IntN(len(wrote)+1), r.IntN(len(heard)+1)
			tr.Wrote(offset, wrote[:n])
			tr.Heard(heard[:k])
			offset, wrote, heard = offset+uint64(n), wrote[n:], heard[k:]
		}
		if _, ok := tr.At(offset); !ok && (tr.Resting() || tr.Lost()) {
			t.Fatal("there is no class")
		}
		if tr.Size() > 1<<20 {
			t.Fatalf("%d bytes are kept", tr.Size())
		}
	})
}
