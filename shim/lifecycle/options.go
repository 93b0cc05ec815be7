package lifecycle

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/pelletier/go-toml/v2"
)

// ParseOptions reads the runtime options of a request, which differ by sender:
// ctr sends runc's options, CRI sends the generic options (with the path of a
// TOML file, or the TOML text itself, or neither) because it does not know our
// runtime, nerdctl sends none. The TOML keys are the names of runc's options as
// containerd's configuration spells them (BinaryName, Root, SystemdCgroup, …).
//
// Errors: ErrOptions, naming the type or the file; ErrUnknownOptions for a type
// that is none of these.
func ParseOptions(from typeurl.Any) (*options.Options, error) {
	// GetValue is nil-safe, and an empty value carries nothing to decode.
	if from == nil || from.GetTypeUrl() == "" {
		return &options.Options{}, nil
	}
	v, err := typeurl.UnmarshalAny(from)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("%s: %w", from.GetTypeUrl(), ErrUnknownOptions)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", from.GetTypeUrl(), ErrOptions, err)
	}
	switch o := v.(type) {
	case *options.Options:
		return o, nil
	case *runtimeoptions.Options:
		return parseGeneric(o)
	}
	return nil, fmt.Errorf("%s: %w", from.GetTypeUrl(), ErrUnknownOptions)
}

// tomlOptions are runc's options under the names that containerd's
// configuration gives them.
type tomlOptions struct {
	NoPivotRoot   bool
	NoNewKeyring  bool
	ShimCgroup    string
	IoUid         uint32 //nolint:revive // the key's spelling
	IoGid         uint32 //nolint:revive // the key's spelling
	BinaryName    string
	Root          string
	SystemdCgroup bool
	CriuImagePath string
	CriuWorkPath  string
}

func parseGeneric(o *runtimeoptions.Options) (*options.Options, error) {
	text, from := o.ConfigBody, "config body"
	if o.ConfigPath != "" {
		var err error
		from = o.ConfigPath
		if text, err = os.ReadFile(o.ConfigPath); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOptions, err)
		}
	}
	var t tomlOptions
	if err := toml.Unmarshal(text, &t); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, _ := at.Position()
			from = fmt.Sprintf("%s, line %d", from, row)
		}
		return nil, fmt.Errorf("%s: %w: %w", from, ErrOptions, err)
	}
	return &options.Options{
		NoPivotRoot:   t.NoPivotRoot,
		NoNewKeyring:  t.NoNewKeyring,
		ShimCgroup:    t.ShimCgroup,
		IoUid:         t.IoUid,
		IoGid:         t.IoGid,
		BinaryName:    t.BinaryName,
		Root:          t.Root,
		SystemdCgroup: t.SystemdCgroup,
		CriuImagePath: t.CriuImagePath,
		CriuWorkPath:  t.CriuWorkPath,
	}, nil
}
