// Package imagebench measures what the OCI images of checkpoints cost, and
// whether other tools open them.
//
// A Redis holds random data, which does not compress; in each round a part of
// it is overwritten, and an image of a checkpoint made after that is waited for.
// In the end all images are fetched again, and the pages of each are compared
// by content with those of the image before: that is what changed, whatever the
// publisher believed. checkpointctl opens what the daemon exports.
//
// A second Redis does the same without images. The two make their checkpoints in
// turn, in random order, and only then have a client; what clients wait longer
// with images is given with the interval in which it lies with 95 % confidence.
package imagebench
