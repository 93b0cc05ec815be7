package redirect

import "errors"

var (
	// ErrOptions is returned by Install for options that cannot be used.
	ErrOptions = errors.New("invalid redirect options")
	// ErrKernel is returned by Install when the kernel lacks what the rules
	// need: nf_tables with the inet family, nft_socket, nft_tproxy, and policy routing.
	ErrKernel = errors.New("kernel cannot redirect")
)
