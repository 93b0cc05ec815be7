package oci

import ocispec "github.com/opencontainers/image-spec/specs-go/v1"

// Media types of layers. The first is the standard one, a tar that other tools
// for checkpoints read.
const (
	mediaTypeState = ocispec.MediaTypeImageLayerZstd
	mediaTypePages = "application/vnd.crsc.checkpoint.pages.v1+zstd"
	mediaTypeFile  = "application/vnd.crsc.checkpoint.file.v1+zstd"
)

// suffixEncrypted ends the media type of a layer that is encrypted with age
// (age-encryption.org/v1), after compression.
const suffixEncrypted = "+age"

// Annotations of a layer's descriptor.
const (
	annotationRole = "crsc.io/role"
	annotationPath = "crsc.io/path" // of roleFile: below the checkpoint directory
)

// Roles of layers.
const (
	roleSource = "source" // only its pages are needed
	roleState  = "checkpoint"
	rolePages  = "pages"
	roleFile   = "file"
)

// Annotations of the manifest. Those of CRIU's tools are in annotations.go.
const (
	// AnnotationVersion of this format; every image of ours has it.
	AnnotationVersion = "crsc.io/format"
	// AnnotationSequence is the number of the checkpoint.
	AnnotationSequence = "crsc.io/sequence"
	// AnnotationContainer is the container's ID, AnnotationNamespace its
	// containerd namespace.
	AnnotationContainer = "crsc.io/container"
	AnnotationNamespace = "crsc.io/namespace"
	// AnnotationChain is the place in the chain: 0 holds all memory.
	AnnotationChain = "crsc.io/chain"
	// AnnotationSigner is the ID of the key, AnnotationSignature the signature.
	AnnotationSigner    = "crsc.io/signer"
	AnnotationSignature = "crsc.io/signature"

	formatVersion = "1"
)

// Labels of images in containerd.
const (
	labelContainer = "crsc.io/container" // the ID
	labelTime      = "crsc.io/checkpointed"
	// LabelPin keeps an image from being removed by retention: set it with
	// ctr images label NAME crsc.io/pin=true.
	LabelPin = "crsc.io/pin"
	// labelManaged and labelKept are those of containerd's CRI plugin. An image
	// without the first gets a second name from it, its ID, which keeps its blobs
	// when retention has removed the first. With the second the kubelet passes over
	// an image, of which it sees no container.
	labelManaged = "io.cri-containerd.image"
	labelKept    = "io.cri-containerd.pinned"
	// namespaceCRI is the only one that the CRI plugin looks at.
	namespaceCRI = "k8s.io"
	labelGC      = "containerd.io/gc.ref.content."
	// labelGCLayer is not the labelGC+"l." of other images: ctr content prune
	// references takes those away, since a root file system that is unpacked does
	// without its layers. An image of a checkpoint is never unpacked.
	labelGCLayer = labelGC + "checkpoint."
)
