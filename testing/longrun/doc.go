// Package longrun is what the programs behind the long make targets have in
// common: an interrupt ends them in order, out/NAME.json holds what they found,
// and their exit status says whether it was good.
package longrun
