package config

// KeyIntercept decides whose connections are the proxy's.
const KeyIntercept = Prefix + "intercept"

// Intercept says which connections of the container go through the proxy.
type Intercept int

// The directions that may be intercepted.
const (
	InterceptBoth    Intercept = iota
	InterceptIngress           // those that clients open
	InterceptEgress            // those that the container opens
	InterceptOff
)

// String returns the form that the annotation has.
func (i Intercept) String() string { return [...]string{"both", "ingress", "egress", "off"}[i] }

// Ingress says that connections from clients are intercepted.
func (i Intercept) Ingress() bool { return i == InterceptBoth || i == InterceptIngress }

// Egress says that connections to servers are intercepted.
func (i Intercept) Egress() bool { return i == InterceptBoth || i == InterceptEgress }

func interceptKey() key {
	return key{
		name: KeyIntercept, form: `"both", "ingress", "egress" or "off"`, def: "both",
		doc: "Which TCP connections are proxied, and so survive a crash: those that clients open to the container (`ingress`), those that it opens itself (`egress`), both or none. All others pass untouched; after a crash they are reset, and what came over them since the last checkpoint is lost. Without `egress` a request to another server may be sent a second time.",
		parse: func(c *Config, v string) (err error) {
			c.Intercept, err = oneOf(v, InterceptBoth, InterceptIngress, InterceptEgress, InterceptOff)
			return err
		},
	}
}
