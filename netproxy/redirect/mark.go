package redirect

// Packet and socket marks. They live in the four bits of MarkMask and leave the
// others alone. Marks end at the border of the network namespace, so they can
// only meet those of programs inside the pod: Istio's (0x539, 0x111, 0x40),
// CRIU's (0xC114); kube-proxy's bits (0x4000, 0x8000) are left free as well.
const (
	// MarkMask covers the bits that are ours.
	MarkMask uint32 = 0x0f00_0000
	// MarkOwn is carried by every socket of ours but legs; their packets are never
	// steered.
	MarkOwn uint32 = 0x0a00_0000
	// MarkSteer is put on packets of the application that have to come back over lo.
	// Legs carry it too: the sockets which the application accepts from them inherit
	// it (inheritance).
	MarkSteer uint32 = 0x0500_0000
	// MarkGrant is put on the SYN of a connection that is to be redirected: one
	// that the application opens, or one to it over lo.
	MarkGrant uint32 = 0x0600_0000
	// MarkMissed is put on the application's answer to a SYN that has passed the
	// rules, which is refused.
	MarkMissed uint32 = 0x0700_0000
)

// LegPriority is the SO_PRIORITY of legs, which have the mark of their other ends,
// but not this. Nothing else depends on it: lo has no queue.
const LegPriority = 0x6372_7363

const (
	// routeTable holds one route per family, "local default dev lo".
	routeTable = 5210
	// rulePriority lies between the local table (0) and main (32766), and before
	// the range that VPN and mesh agents use.
	rulePriority = 5210
	// loopbackIndex is the interface index of lo in every network namespace.
	loopbackIndex = 1
)
