package bench

import (
	"bufio"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// answering returns a connection whose peer says text and ends.
func answering(t *testing.T, text string) *Redis {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		buf := make([]byte, 1024)
		if _, err := far.Read(buf); err == nil {
			_, _ = far.Write([]byte(text)) // the reader judges
		}
	}()
	t.Cleanup(func() { near.Close(); <-done })
	return &Redis{near, bufio.NewReader(near)}
}

func TestDo(t *testing.T) {
	for text, want := range map[string]string{"+OK\r\n": "OK", ":42\r\n": "42", "$3\r\na\r\n\r\n": "a\r\n", "$0\r\n\r\n": ""} {
		got, err := answering(t, text).Do("GET", "k")
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, text := range []string{"-ERR no\r\n", "$-1\r\n", "\r\n", "$x\r\n"} {
		_, err := answering(t, text).Do("GET", "k")
		assert.ErrorIs(t, err, ErrReply, "%q", text)
	}
	for _, text := range []string{"", "+OK", "$3\r\nab"} {
		_, err := answering(t, text).Do("GET", "k")
		assert.Error(t, err, "%q", text)
	}
}

func TestSkip(t *testing.T) {
	c := answering(t, "$5\r\nhello\r\n+OK\r\n$9\r\nx")
	_, err := c.Write(Command("GET", "k"))
	require.NoError(t, err)
	for _, want := range []int{5, 2} {
		n, err := c.Skip()
		require.NoError(t, err)
		assert.Equal(t, want, n)
	}
	_, err = c.Skip()
	assert.Error(t, err)
	assert.Equal(t, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", string(Command("GET", "k")))
}
