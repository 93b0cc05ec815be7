package shim

import (
	"bytes"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

func marshalAny(t testing.TB, v any) []byte {
	t.Helper()
	a, err := typeurl.MarshalAnyToProto(v)
	require.NoError(t, err)
	data, err := proto.Marshal(a)
	require.NoError(t, err)
	return data
}

// bootstrapParams is what a daemon from 2.3 on writes.
func bootstrapParams(socketDir string, extensions ...[]byte) []byte {
	var b []byte
	str := func(n protowire.Number, s string) {
		b = protowire.AppendTag(b, n, protowire.BytesType)
		b = protowire.AppendString(b, s)
	}
	str(1, "redis")
	str(2, "k8s.io")
	b = protowire.AppendTag(b, 3, protowire.VarintType)
	b = protowire.AppendVarint(b, 0xfffffffffffffffc) // LOG_LEVEL_DEBUG
	str(4, "v2.3.7")
	str(5, "/run/containerd/containerd.sock.ttrpc")
	for _, e := range extensions {
		var x []byte
		x = protowire.AppendTag(x, 1, protowire.BytesType)
		x = protowire.AppendBytes(x, e)
		str(8, string(x))
	}
	if socketDir != "" {
		str(9, socketDir)
	}
	return b
}

func TestStartInputOfEveryDaemon(t *testing.T) {
	runc := marshalAny(t, &options.Options{BinaryName: "x", ShimCgroup: "/a"})
	generic := marshalAny(t, &runtimeoptions.Options{ConfigBody: []byte("ShimCgroup = \"/b\"")})
	strange := marshalAny(t, &events.TaskStart{ContainerID: "x"})
	for name, c := range map[string]struct {
		in     []byte
		cgroup string
		given  bool
		dir    string
	}{
		"nothing":               {nil, "", false, ""},
		"2.2, runc":             {runc, "/a", true, ""},
		"2.2, generic":          {generic, "/b", true, ""},
		"2.3, none":             {bootstrapParams(""), "", false, ""},
		"2.3, runc":             {bootstrapParams("", runc), "/a", true, ""},
		"2.3, generic, and dir": {bootstrapParams("/run/x", generic), "/b", true, "/run/x"},
		"2.3, others as well":   {bootstrapParams("", strange, runc, strange), "/a", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readStartInput(bytes.NewReader(c.in))
			require.NoError(t, err)
			require.Equal(t, c.cgroup, got.options.ShimCgroup)
			require.Equal(t, c.given, got.given)
			require.Equal(t, c.dir, got.socketDir)
		})
	}
	for name, in := range map[string][]byte{
		"no message":            []byte("{}"),
		"cut off":               runc[:len(runc)-1],
		"2.2, another type":     strange,
		"2.3, damaged options":  bootstrapParams("", marshalAny(t, &runtimeoptions.Options{ConfigBody: []byte("Root = [")})),
		"2.3, broken extension": append(bootstrapParams(""), 8<<3|2, 1, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readStartInput(bytes.NewReader(in))
			require.ErrorIs(t, err, lifecycle.ErrOptions)
		})
	}
}

func FuzzStartInput(f *testing.F) {
	f.Add([]byte{})
	f.Add(bootstrapParams("/run/x", marshalAny(f, &options.Options{Root: "/r"})))
	f.Add(marshalAny(f, &runtimeoptions.Options{ConfigBody: []byte("Root = \"/r\"")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := readStartInput(bytes.NewReader(data))
		if err == nil {
			require.NotNil(t, in.options)
		}
	})
}
