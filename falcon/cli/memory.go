package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// words returns the values of all flags as command line words, in the order of
// the flags' names. All, because defaults may come from the environment or
// change with the program.
func words(flags *pflag.FlagSet) []string {
	var words []string
	flags.VisitAll(func(f *pflag.Flag) {
		for _, v := range values(f) {
			words = append(words, "--"+f.Name+"="+v)
		}
	})
	return words
}

// values returns the value of a flag, a list's one by one.
func values(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	v := f.Value.String()
	if strings.HasPrefix(f.Value.Type(), "stringTo") {
		v = strings.TrimSuffix(strings.TrimPrefix(v, "["), "]")
	}
	return []string{v}
}

// restore gives flags the values that they have in remembered words, but for
// those that were given on the command line. It returns the given ones that
// differ. Words for flags that the program no longer has are passed over.
func restore(flags *pflag.FlagSet, remembered []string) (differing []string, err error) {
	byName := make(map[string][]string)
	for _, w := range remembered {
		name, value, _ := strings.Cut(strings.TrimPrefix(w, "--"), "=")
		byName[name] = append(byName[name], value)
	}
	flags.VisitAll(func(f *pflag.Flag) {
		old, known := byName[f.Name]
		_, list := f.Value.(pflag.SliceValue)
		switch {
		case f.Changed && (known || list) && !slices.Equal(old, values(f)):
			differing = append(differing, "--"+f.Name)
		case f.Changed || !known && !list:
		default:
			if serr := set(f, old); serr != nil {
				err = errors.Join(err, fmt.Errorf("remembered flag --%s: %w", f.Name, serr))
			}
		}
	})
	return differing, err
}

func set(f *pflag.Flag, values []string) error {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	return f.Value.Set(values[0])
}
