package oci

import "errors"

var (
	// ErrNotCheckpoint is returned for an image that is not a checkpoint of
	// ours.
	ErrNotCheckpoint = errors.New("the image is not a checkpoint made by crsc")
	// ErrUnsupportedVersion is returned for a checkpoint image of a newer
	// format.
	ErrUnsupportedVersion = errors.New("unsupported version of the checkpoint image's format")
	// ErrCorrupt is returned when an image is not what its format and its
	// digests say: cut short, changed, padded, or made up.
	ErrCorrupt = errors.New("the checkpoint image is damaged")
	// ErrTooLarge is returned for an image beyond the Limits.
	ErrTooLarge = errors.New("the checkpoint image is larger than allowed")
	// ErrIncomplete is returned when a blob of an image is not in the store.
	ErrIncomplete = errors.New("the checkpoint image is incomplete")
	// ErrUntrusted is returned for an image that nobody who is trusted has signed.
	ErrUntrusted = errors.New("the checkpoint image is not trusted")
	// ErrUnreadable is returned for an encrypted image when the key is missing.
	ErrUnreadable = errors.New("the checkpoint image can't be decrypted")
	// ErrIncompatible is returned for an image that does not fit this place.
	ErrIncompatible = errors.New("the checkpoint image does not fit")
	// ErrKey is returned for a key that can't be read.
	ErrKey = errors.New("image key")
	// ErrNotPublishable is returned for a directory that is not a complete
	// checkpoint.
	ErrNotPublishable = errors.New("not a complete checkpoint")
)
