package config

// KeyUDP decides what becomes of datagrams.
const KeyUDP = Prefix + "udp"

func udpKey() key {
	return key{
		name: KeyUDP, form: `"pass" or "journal"`, def: "pass",
		doc: "What becomes of the UDP that is sent to the container. `pass`: it goes past the proxy, and what the application had taken since its last checkpoint is lost in a crash. `journal`: it is recorded before the application gets it, and replayed after a crash in the order in which the application had taken it, together with TCP; answers that were sent are not sent again. Of each port that the application has bound outside of net.ipv4.ip_local_port_range, where answers to its own questions come to; not over the loopback interface, nor to multicast and broadcast addresses. `in:` of `exclude-ports` and `exclude-cidrs` holds for it, too. Datagrams are dropped when 4 MiB of them wait, or when the journal is nearly full. One of more than 65,483 bytes passes, and is a reason for a checkpoint.",
		parse: func(c *Config, v string) error {
			if v != "pass" && v != "journal" {
				return errForm
			}
			c.JournalUDP = v == "journal"
			return nil
		},
	}
}
