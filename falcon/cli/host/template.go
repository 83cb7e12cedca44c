package host

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

func newImageWarmCommand() *cobra.Command {
	o := falcon.WarmOptions{Memory: falcon.MiB(256)}
	cmd := &cobra.Command{
		Use:   "warm IMAGE",
		Short: "Have an image's guests boot ahead of time",
		Long: `Have a guest of an image boot and keep it as a template, of which a launch then
makes its nodes: they need not boot. A launch makes the templates that it misses
itself. A template is good for nodes with the same image, cores, memory and
number of interfaces; nodes with mounts or disks of another size have their own,
which the first launch makes.`,
		Args:              wantArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Image = args[0]
			show := newImageProgress(cmd.ErrOrStderr())
			o.Progress = func(p falcon.Progress) {
				show.report(image.Step{What: strings.TrimSpace(p.Node + ": " + p.Detail), Done: p.Done, Total: p.Total})
			}
			begun := time.Now()
			err := falcon.Warm(cmd.Context(), o)
			show.end()
			if err != nil {
				return err
			}
			printf(cmd, "%s is warm for nodes with %d cores, %s and %s interfaces, after %s\n", o.Image, o.Cores, o.Memory,
				strings.Join(strings.Fields(strings.Trim(fmt.Sprint(o.Interfaces), "[]")), ", "), time.Since(begun).Round(time.Millisecond))
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Cores, "cores", 1, "virtual processors of the nodes")
	f.Var((*memoryFlag)(&o.Memory), "memory", "memory of the nodes, such as 256M or 1G; a bare number is MiB")
	f.IntSliceVar(&o.Interfaces, "interfaces", []int{0, 1, 2}, "numbers of interfaces that nodes have")
	return cmd
}

// memoryFlag is an amount of memory on the command line.
type memoryFlag falcon.Bytes

// String implements pflag.Value.
func (m *memoryFlag) String() string { return falcon.Bytes(*m).String() }

// Type implements pflag.Value.
func (m *memoryFlag) Type() string { return "size" }

// Set implements pflag.Value.
func (m *memoryFlag) Set(text string) error {
	var n uint64
	var unit string
	if _, err := fmt.Sscanf(text+" ", "%d%s", &n, &unit); err != nil && n == 0 {
		return fmt.Errorf("%q is no amount of memory: give 256M or 1G", text)
	}
	switch strings.ToLower(unit) {
	case "", "m", "mb", "mib":
		*m = memoryFlag(falcon.MiB(n))
	case "g", "gb", "gib":
		*m = memoryFlag(falcon.GiB(n))
	default:
		return fmt.Errorf("%q is no amount of memory: give 256M or 1G", text)
	}
	return nil
}

// templatesDocument is what image prune prints as JSON.
type templatesDocument struct {
	Version int               `json:"version"`
	Removed []falcon.Template `json:"removed"`
	Kept    []falcon.Template `json:"kept"`
}

func newImagePruneCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove templates that are of no use any more",
		Long: `Remove templates, the guests that have booted once so that nodes need not, on
which no disk and no image stands: those that can never be used again, because
their image or QEMU is another one now; and with --all the others too. A launch
removes the former by itself, and those used longest ago when all together take
more than ` + falcon.Bytes(falcon.TemplateLimit).String() + `. What is kept is listed.`,
		Args: wantArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := falcon.PruneTemplates(cmd.Context(), all)
			kept, kerr := falcon.Templates(cmd.Context())
			err = errors.Join(err, kerr)
			if asJSON {
				doc := templatesDocument{imageDocumentVersion, append([]falcon.Template{}, removed...), append([]falcon.Template{}, kept...)}
				return errors.Join(printJSON(cmd, doc), err)
			}
			printTemplates(cmd, removed, kept)
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove those too that a launch would use")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what is removed and kept as JSON")
	return cmd
}

func printTemplates(cmd *cobra.Command, removed, kept []falcon.Template) {
	if len(removed)+len(kept) == 0 {
		printf(cmd, "there are no templates\n")
		return
	}
	w := tabwriter.NewWriter(printable.Writer(cmd.OutOrStdout()), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TEMPLATE\tIMAGE\tCORES\tMEMORY\tINTERFACES\tSIZE\tUSED\t")
	row := func(t falcon.Template, what string) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n", t.Key[:min(digestDigits, len(t.Key))], t.Image, t.Cores,
			falcon.Bytes(t.Memory), t.Interfaces, bytesText(t.Size), t.Used.Local().Format(time.DateTime), what)
	}
	for _, t := range removed {
		row(t, "removed")
	}
	for _, t := range kept {
		what := "kept"
		if len(t.InUse) > 0 {
			what = "in use by " + strings.Join(t.InUse, ", ")
		}
		row(t, what)
	}
	_ = w.Flush() // nothing can be told to somebody who cannot read
}
