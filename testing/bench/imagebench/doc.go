// Package imagebench measures what the OCI images of checkpoints cost, and
// whether other tools open them.
//
// A Redis holds random data, which does not compress; in each round a part of
// it is overwritten, and an image of a checkpoint made after that is waited for.
// In the end all images are fetched again, and the pages of each are compared
// by content with those of the image before: that is what changed, whatever the
// publisher believed. A second Redis does the same without images, for what
// they cost clients and the processor. checkpointctl opens what the daemon
// exports.
package imagebench
