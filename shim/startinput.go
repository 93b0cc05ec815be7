package shim

import (
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// maxInput bounds what is read of the standard input; containerd's shims have
// the same limit.
const maxInput = 10 << 20

// startInput is what containerd writes to the standard input of an action.
type startInput struct {
	options *options.Options
	// given is false if no runtime options were written.
	given bool
	// socketDir is where the shim's socket is wanted; empty: at the usual place.
	socketDir string
}

// Fields of containerd.runtime.bootstrap.v1.BootstrapParams and its Extension,
// api/runtime/bootstrap/v1/bootstrap.proto of containerd 2.3. Its field 1 and 2
// are strings, as those of google.protobuf.Any; the daemon always sets others.
const (
	fieldExtensions = 8
	fieldSocketDir  = 9
	fieldValue      = 1
	lastOfAny       = 2
)

// readStartInput understands both forms: up to containerd 2.2 the runtime
// options as an Any, from 2.3 on the parameters that hold them as an extension.
//
// Errors: lifecycle.ErrOptions.
func readStartInput(r io.Reader) (startInput, error) {
	in := startInput{options: &options.Options{}}
	data, err := io.ReadAll(io.LimitReader(r, maxInput))
	if err != nil {
		return in, fmt.Errorf("read options: %w", err)
	}
	fields, err := parseFields(data)
	if err != nil {
		return in, fmt.Errorf("%w: %w", lifecycle.ErrOptions, err)
	}
	isAny := true
	for _, f := range fields {
		isAny = isAny && f.number <= lastOfAny
	}
	if isAny {
		err := in.decode(data)
		return in, err
	}
	for _, f := range fields {
		switch f.number {
		case fieldSocketDir:
			in.socketDir = string(f.bytes)
		case fieldExtensions:
			if err := in.readExtension(f.bytes); err != nil {
				return in, err
			}
		}
	}
	return in, nil
}

// readExtension takes the runtime options; extensions of a type that this shim
// does not know are not for it.
func (in *startInput) readExtension(data []byte) error {
	fields, err := parseFields(data)
	if err != nil {
		return fmt.Errorf("%w: %w", lifecycle.ErrOptions, err)
	}
	for _, f := range fields {
		if f.number != fieldValue {
			continue
		}
		if err := in.decode(f.bytes); err != nil && !errors.Is(err, lifecycle.ErrUnknownOptions) {
			return err
		}
	}
	return nil
}

func (in *startInput) decode(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	any := &anypb.Any{}
	if err := proto.Unmarshal(data, any); err != nil {
		return fmt.Errorf("%w: %w", lifecycle.ErrOptions, err)
	}
	o, err := lifecycle.ParseOptions(any)
	if err != nil {
		return err
	}
	in.options, in.given = o, true
	return nil
}

// field is a length-delimited field of a message; those of other kinds are
// listed without their value.
type field struct {
	number protowire.Number
	bytes  []byte
}

func parseFields(data []byte) ([]field, error) {
	var out []field
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		data = data[n:]
		f := field{number: number}
		if kind == protowire.BytesType {
			f.bytes, n = protowire.ConsumeBytes(data)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		data = data[n:]
		out = append(out, f)
	}
	return out, nil
}
