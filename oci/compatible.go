package oci

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
)

// Compatible compares where an image was made with where it is to be restored;
// here needs CRIUVersion, Kernel and ImageDigest. It returns what is different
// and need not matter.
//
// Errors: ErrIncompatible.
func (i *Info) Compatible(here Origin) (warnings []string, err error) {
	refuse := func(format string, args ...any) ([]string, error) {
		return nil, fmt.Errorf("%w: %s", ErrIncompatible, fmt.Sprintf(format, args...))
	}
	get := func(name string) string { return i.Annotations[name] }
	if arch := get(annotationArch); arch != runtime.GOARCH {
		return refuse("it was made on %.20q, and this is %s", arch, runtime.GOARCH)
	}
	if made := get(annotationCRIU); newer(made, here.CRIUVersion) {
		return refuse("it was made by CRIU %.20q, and this is the older %s", made, here.CRIUVersion)
	}
	switch made := get(annotationKernel); {
	case newer(made, here.Kernel):
		return refuse("it was made on Linux %.80q, and this is the older %s", made, here.Kernel)
	case made != here.Kernel:
		warnings = append(warnings, fmt.Sprintf("it was made on Linux %.80q, and this is %s", made, here.Kernel))
	}
	switch made := get(annotationRootfsSha); {
	case made == "" || here.ImageDigest == "":
		warnings = append(warnings, "whether it was made of a container of the same image is not known")
	case made != here.ImageDigest:
		return refuse("it was made of a container of the image %.80s, and this is one of %s", made, here.ImageDigest)
	}
	return warnings, nil
}

// newer compares the first two numbers of versions. What is no version is newer
// than all.
func newer(a, b string) bool {
	x, ok := version(a)
	y, known := version(b)
	return !ok || !known || x[0] > y[0] || x[0] == y[0] && x[1] > y[1]
}

func version(s string) (v [2]int, ok bool) {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < len(v) || !strings.HasPrefix(s, parts[0]+"."+parts[1]) {
		return v, false
	}
	for i := range v {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}
