// Package oci turns a checkpoint directory into an OCI image in containerd's
// content store, and such an image back into a checkpoint directory. FORMAT.md
// describes the images; other tools for checkpoints open them.
//
//	store, err := oci.Dial(address)
//	publisher, err := oci.NewPublisher(oci.Options{Store: store, …})
//	published, err := publisher.Publish(ctx, oci.Checkpoint{Dir: dir, …})
//	…
//	image, err := store.Images.Get(ctx, oci.Name(namespace, id, "latest"))
//	info, err := oci.Fetch(ctx, store.Content, image.Target, dir, oci.FetchOptions{Trust: trust})
//
// Images of one container follow each other in chains. The first image of a
// chain holds all memory; the others hold the pages whose content no image of
// the chain before them has, and refer to the layers that have the rest. Every
// image lists all layers that it needs, so each can be copied, exported and
// restored by itself, and outlives the ones before it.
//
// Invariants:
//
//   - An image's name appears when everything it refers to is in the content
//     store, and durable; before that a lease holds the parts. What an
//     interrupted publication leaves is not referred to by anything: the next
//     one drops the lease and the unfinished uploads, or the lease expires, and
//     containerd's garbage collection takes the rest.
//   - The last complete image of a container is never removed.
//   - Fetch trusts nothing but the digest of the manifest, and that only if a
//     trusted key has signed it: every byte is checked against a digest, names
//     come from a short list, and sizes are bounded before anything is allocated
//     or written.
package oci
