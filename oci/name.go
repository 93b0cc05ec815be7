package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// registry is the first part of all names. It resolves nowhere: a push needs
// another name.
const registry = "crsc.local/crsc/"

// Latest is the tag of the newest image of a container.
const Latest = "latest"

// Name is the image name of a container's checkpoint; tag is a sequence number
// or Latest. Both parts are containerd identifiers. References have no capital
// letters: an identifier with some gets a hash of it appended, so that two never
// share a name.
func Name(namespace, id, tag string) string {
	return registry + component(namespace) + "/" + component(id) + ":" + tag
}

// Tag is the tag of a sequence number.
func Tag(sequence uint64) string { return strconv.FormatUint(sequence, 10) }

func component(identifier string) string {
	lower := strings.ToLower(identifier)
	if lower == identifier {
		return identifier
	}
	sum := sha256.Sum256([]byte(identifier))
	return lower + "-" + hex.EncodeToString(sum[:4])
}

// token names what belongs to a container where IDs would be too long: leases
// and uploads.
func token(namespace, id string) string {
	sum := sha256.Sum256([]byte(namespace + "/" + id))
	return "crsc-" + hex.EncodeToString(sum[:8])
}
