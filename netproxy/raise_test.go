package netproxy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/session"
)

// transactionBank is a bank that has a little of PostgreSQL: a charge counts when its
// transaction is committed, and no two sessions are told the same when they begin.
func (r *rig) transactionBank() *webBank {
	b := &webBank{times: map[string]int{}}
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		key := fmt.Sprintf("%08d", b.opened.Add(1))
		from := bufio.NewReader(c)
		var size [4]byte
		if _, err := io.ReadFull(from, size[:]); err != nil {
			return
		}
		if _, err := from.Discard(int(binary.BigEndian.Uint32(size[:])) - 4); err != nil {
			return
		}
		fmt.Fprint(c, pgMessage('R', "\x00\x00\x00\x00")+pgMessage('K', key)+pgMessage('Z', "I"))
		open, charged := "I", ""
		for {
			kind, body, err := readPGMessage(from)
			if err != nil || kind == 'X' {
				return
			}
			tag := "OK"
			switch verb, id, _ := strings.Cut(strings.TrimSuffix(body, "\x00"), " "); {
			case kind == 'S' || kind == 'P':
			case verb == "begin" && open == "I":
				open = "T"
			case verb == "insert" && open == "T":
				charged = id
			case verb == "commit" && charged != "":
				b.mu.Lock()
				b.times[charged]++
				b.mu.Unlock()
				open, charged, tag = "I", "", fmt.Sprint(b.charged.Add(1))
			default:
				return
			}
			if kind == 'P' {
				fmt.Fprint(c, pgMessage('1', ""))
				continue
			}
			fmt.Fprint(c, pgMessage('C', tag+"\x00")+pgMessage('Z', open))
		}
	})
	return b
}

// transactions are a pool of sessions with that bank. It keeps one of those that rest,
// and waits for the server's end of the others, as pgx does.
type transactions struct {
	a    *teller
	mu   sync.Mutex // guards what follows
	idle *pgSession
}

// startups are what begins a session, written in another order each time: as from a map.
type startups struct{ n atomic.Int64 }

func (s *startups) next() string {
	pairs := [2]string{"user\x00a\x00", "database\x00b\x00"}
	k := s.n.Add(1) % 2
	body := "\x00\x03\x00\x00" + pairs[k] + pairs[1-k] + "\x00"
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))) + body
}

func (s *transactions) take(begin *startups) (*pgSession, error) {
	s.mu.Lock()
	c := s.idle
	s.idle = nil
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	b, err := s.a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
	if err != nil {
		return nil, err
	}
	c = &pgSession{b, bufio.NewReader(b)}
	_, err = c.ask(begin.next())
	return c, err
}

func (s *transactions) give(c *pgSession) error {
	s.mu.Lock()
	first := s.idle == nil
	if first {
		s.idle = c
	}
	s.mu.Unlock()
	if first {
		return nil
	}
	if _, err := io.WriteString(c, pgMessage('X', "")); err != nil {
		return err
	}
	_, err := c.from.ReadByte()
	c.Close()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("instead of the end of a session: %w", err)
}

// charge makes a transaction of three requests, the first of which is the same each time.
func (s *transactions) charge(begin *startups, id string) (total string, err error) {
	c, err := s.take(begin)
	if err != nil {
		return "", err
	}
	for _, sql := range []string{"begin", "insert " + id, "commit"} {
		if total, err = c.ask(pgMessage('Q', sql+"\x00")); err != nil {
			return "", fmt.Errorf("%s: %w", sql, err)
		}
	}
	return total, s.give(c)
}

// TestTransactions: an application that opens and closes sessions all the time is
// recovered although it begins its transactions in another order in its second life, on
// other sessions, and has more of them.
func TestTransactions(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newEgressRig(t, kind)
			b := r.transactionBank()
			var begin startups
			app := func() func(*teller, *net.TCPConn) {
				pool := &transactions{}
				var once sync.Once
				return func(a *teller, c *net.TCPConn) {
					once.Do(func() { pool.a = a })
					defer c.Close()
					for s := bufio.NewScanner(c); s.Scan(); {
						total, err := pool.charge(&begin, s.Text())
						if err != nil {
							if !a.dead.Load() {
								fmt.Fprintf(c, "error %v\n", err)
							}
							return
						}
						fmt.Fprintf(c, "done charge %s %s\n", s.Text(), total)
					}
				}
			}
			r.chargeThroughKills(t, b, app, 6, 3, nil)
		})
	}
}

// TestPath: how a session came about is kept without what transactions did in it.
func TestPath(t *testing.T) {
	talk := []struct{ wrote, heard string }{
		{"\x00\x00\x00\x08\x00\x03\x00\x00", pgMessage('Z', "I")},
		{pgMessage('Q', "begin\x00"), pgMessage('Z', "T")},
		{pgMessage('P', "1\x00SELECT 1\x00\x00\x00") + pgMessage('S', ""), pgMessage('1', "") + pgMessage('Z', "T")},
		{pgMessage('Q', "UPDATE t SET n = 1\x00"), pgMessage('Z', "T")},
		{pgMessage('Q', "commit\x00"), pgMessage('Z', "I")},
		{pgMessage('Q', "begin\x00"), pgMessage('Z', "T")},
	}
	tr := session.Sniff(1, []byte(talk[0].wrote))
	offset, classes := uint64(0), []session.Class{{}}
	for _, k := range talk {
		tr.Wrote(offset, []byte(k.wrote))
		tr.Heard([]byte(k.heard))
		offset += uint64(len(k.wrote))
		class, ok := tr.At(offset)
		require.True(t, ok)
		classes = append(classes, class)
	}
	var p path
	for i, k := range talk {
		p.add(made{request: []byte(k.wrote), class: classes[i+1], harmless: i != 3 && i != 4, begins: i == 1 || i == 5})
	}
	steps := func(class session.Class, there ...session.Class) (texts []string) {
		_, list := p.to(class, func(c session.Class) bool { return slices.Contains(there, c) })
		for _, m := range list {
			texts = append(texts, string(m.request[:1]))
		}
		return texts
	}
	var none session.Class
	rest, open := classes[5], classes[6]
	require.Equal(t, []string{"\x00", "P", "Q"}, steps(open, none))
	require.Equal(t, []string{"\x00", "P"}, steps(rest, none))
	require.Equal(t, []string{"Q"}, steps(open, rest, none), "the nearest comes first")
	require.Empty(t, steps(classes[4], none), "work is not done twice")
	require.Empty(t, steps(open))
	p.add(made{class: classes[4]})
	require.Empty(t, steps(classes[4], none), "nor in this transaction")
	p.add(made{class: rest})
	require.Equal(t, []string{"\x00", "P"}, steps(rest, none), "it is as before")
}
