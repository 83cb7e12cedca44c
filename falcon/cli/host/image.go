package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/image/build"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// newImageCommand returns the commands that look after base images.
func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build, import and look after base images",
		Long: `Build, import and look after base images, on which the disks of nodes stand.
Images are kept in FALCON_HOME, by default /var/lib/falcon for root and
~/.local/share/falcon for others, who see the system's images too; or in ZFS
volumes of the dataset that FALCON_DATASET names. "falcon doctor" says which.`,
	}
	cmd.AddCommand(newImageLsCommand(), newImageShowCommand(), newImageBuildCommand(), newImageFetchCommand(), newImageImportCommand(),
		newImageExportCommand(), newImageRmCommand(), newImagePathCommand(), newImageWarmCommand(), newImagePruneCommand())
	return cmd
}

func newImageLsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images",
		Args:  wantArgs(cobra.NoArgs),
		RunE: withStore(func(cmd *cobra.Command, s image.Store, _ []string) error {
			images, err := s.List(cmd.Context())
			err = errors.Join(err, tellUnfinished(cmd, s))
			if asJSON {
				return errors.Join(printJSON(cmd, imagesDocument{imageDocumentVersion, append([]image.Image{}, images...)}), err)
			}
			printImages(cmd, images)
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

// tellUnfinished names the images that were not finished, which are not listed.
func tellUnfinished(cmd *cobra.Command, s image.Store) error {
	store, ok := s.(image.Sweeper)
	if !ok {
		return nil
	}
	left, err := store.Abandoned(cmd.Context())
	for _, a := range left {
		if a.Kind == "image" || a.Kind == "snapshot" || a.Kind == "volume" {
			fmt.Fprintf(printable.Writer(cmd.ErrOrStderr()), "unfinished: %s: %s; end it with: falcon doctor --fix\n", a.Name, a.Reason)
		}
	}
	return err
}

// imageDocumentVersion changes when what is printed as JSON becomes something
// that its readers cannot take any more.
const imageDocumentVersion = 1

// imagesDocument is what image ls prints as JSON.
type imagesDocument struct {
	Version int           `json:"version"`
	Images  []image.Image `json:"images"`
}

// digestDigits is how much of a digest a table shows: enough to tell two apart.
const digestDigits = 12

func printImages(cmd *cobra.Command, images []image.Image) {
	w := tabwriter.NewWriter(printable.Writer(cmd.OutOrStdout()), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tDIGEST\tSIZE\tDISK\tPARENT\tBOOT\tCREATED\tSTORE")
	for _, i := range images {
		digest := strings.TrimPrefix(i.Digest, "sha256:")
		store := "own"
		if i.ReadOnly {
			store = "system"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.Name, digest[:min(digestDigits, len(digest))],
			bytesText(i.Size), bytesText(i.VirtualSize), orDash(i.Parent), i.Boot.Method, i.Created.Local().Format(time.DateTime), store)
	}
	_ = w.Flush() // nothing can be told to somebody who cannot read
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// imageDocument is what image show prints as JSON.
type imageDocument struct {
	Version int `json:"version"`
	image.Image
	UsedBy []string `json:"used_by"`
}

func newImageShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show all about an image, and what stands on it",
		Args:              wantArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completeImage,
		RunE: withStore(func(cmd *cobra.Command, s image.Store, args []string) error {
			img, err := getImage(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			by, err := s.UsedBy(cmd.Context(), img)
			if err != nil {
				return err
			}
			doc := imageDocument{imageDocumentVersion, img, append([]string{}, by...)}
			if asJSON {
				return printJSON(cmd, doc)
			}
			showImage(cmd, doc)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func showImage(cmd *cobra.Command, i imageDocument) {
	w := tabwriter.NewWriter(printable.Writer(cmd.OutOrStdout()), 0, 0, 2, ' ', 0)
	defer w.Flush()
	row := func(key, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", key, value)
		}
	}
	row("name", i.Name)
	row("digest", i.Digest+" (of its "+i.DigestOf+")")
	row("size", bytesText(i.Size))
	row("disk size", bytesText(i.VirtualSize))
	row("created", i.Created.Local().Format(time.DateTime))
	row("parent", i.Parent)
	row("system", i.OS)
	row("boot", i.Boot.Method)
	row("kernel", i.Boot.Kernel)
	row("initrd", i.Boot.Initrd)
	row("command line", i.Boot.Append)
	if i.Console.Known {
		row("login", i.Console.Login)
		row("user", i.Console.User)
		row("prompt", i.Console.Prompt)
	} else {
		row("login", "not known: launched without set-up")
	}
	if i.Agent != "" {
		row("guest agent", "version "+i.Agent)
	}
	row("disk", i.Disk+" ("+i.Format+")")
	row("used by", strings.Join(i.UsedBy, "\n\t"))
}

// makeImage shows the making of an image, and then what was done to have it.
func makeImage(cmd *cobra.Command, done string, make func(image.Progress) (image.Image, error)) error {
	show := newImageProgress(cmd.ErrOrStderr())
	img, err := make(show.report)
	show.end()
	if err != nil {
		return err
	}
	printf(cmd, "%s is %s: %s on disk\n", img.Name, done, bytesText(img.Size))
	return nil
}

func newImageBuildCommand() *cobra.Command {
	var mirror, base string
	cmd := &cobra.Command{
		Use:   "build NAME",
		Short: "Build an image from packages, or of another one with the guest agent",
		Long:  buildHelp(),
		Example: "  falcon image build debian-12\n" +
			"  falcon image build alpine-lab --agent-into alpine",
		Args:      wantArgs(cobra.ExactArgs(1)),
		ValidArgs: recipeNames(),
		RunE: withStore(func(cmd *cobra.Command, s image.Store, args []string) error {
			if base != "" {
				return makeImage(cmd, "built", func(report image.Progress) (image.Image, error) {
					return falcon.InstallAgent(cmd.Context(), base, args[0], report)
				})
			}
			err := makeImage(cmd, "built", func(report image.Progress) (image.Image, error) {
				return build.Builder{Store: s, Mirror: mirror}.Build(cmd.Context(), args[0], report)
			})
			if errors.Is(err, image.ErrExists) {
				return fmt.Errorf("%w; to build it anew, remove it first: falcon image rm %s", err, args[0])
			}
			return err
		}),
	}
	cmd.Flags().StringVar(&mirror, "mirror", "", "`URL` of a Debian archive, instead of what this machine's apt is set up with")
	cmd.Flags().StringVar(&base, "agent-into", "", "make NAME of another `IMAGE`, with the guest agent")
	cmd.MarkFlagsMutuallyExclusive("mirror", "agent-into")
	_ = cmd.RegisterFlagCompletionFunc("agent-into", completeImage) // the flag is there
	return cmd
}

func buildHelp() string {
	var b strings.Builder
	b.WriteString("Build an image from packages of the archive that this machine's apt is set up with.\n\nImages:\n")
	for _, r := range build.Recipes() {
		fmt.Fprintf(&b, "  %-13s %s\n", r.Name, r.Description)
	}
	b.WriteString(`
With --agent-into, NAME is another Linux image of any kind with falcon's guest
agent in it, and stands on that. A guest of it is booted for that, so its login
must be known.`)
	return b.String()
}

func recipeNames() []string {
	var names []string
	for _, r := range build.Recipes() {
		names = append(names, r.Name)
	}
	return names
}

func newImageFetchCommand() *cobra.Command {
	var digest string
	cmd := &cobra.Command{
		Use:       "fetch NAME",
		Short:     "Download an image that its makers publish",
		Long:      fetchHelp(),
		Args:      wantArgs(cobra.ExactArgs(1)),
		ValidArgs: image.KnownNames(),
		RunE: withStore(func(cmd *cobra.Command, s image.Store, args []string) error {
			return makeImage(cmd, "fetched", func(report image.Progress) (image.Image, error) {
				return image.Fetch(cmd.Context(), s, args[0], digest, report)
			})
		}),
	}
	cmd.Flags().StringVar(&digest, "sha256", "", "`digest` that the file must have, where its makers publish none")
	return cmd
}

func fetchHelp() string {
	var b strings.Builder
	b.WriteString("Download an image that its makers publish, compare it with its digest, and\nimport it.\n\nImages:\n")
	for _, k := range image.KnownImages() {
		fmt.Fprintf(&b, "  %-12s %s\n", k.Name, k.Description)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func newImageImportCommand() *cobra.Command {
	var o image.ImportOptions
	var hasAgent bool
	cmd := &cobra.Command{
		Use:   "import FILE NAME",
		Short: "Make an image of a disk in a file",
		Long: `Make an image of a disk in a file: raw or qcow2, perhaps compressed with xz, zstd
or gzip. Any operating system will do. It is booted by firmware, unless a kernel
is given. If it has a console on its first serial port, say how to log in there
(--login, --user, --password, --prompt); if nothing is said, its nodes are
launched without set-up, and "serial" shows what they say. For a NAME that
"image fetch" knows all that is known already. If falcon-agent is in it, say so
(--agent); "image build --agent-into" puts it there.`,
		Args: wantArgs(cobra.ExactArgs(2)),
		RunE: withStore(func(cmd *cobra.Command, s image.Store, args []string) error {
			if known, ok := image.FindKnown(args[1]); ok && o.Console == (image.Console{}) && o.Boot == (image.Boot{}) {
				o.Console, o.Boot, o.OS = known.Console, known.Boot, cmp.Or(o.OS, known.OS)
			}
			if hasAgent {
				o.Agent = agent.Version // what it really is, the agent itself tells
			}
			c := &o.Console
			c.Known = c.Login != "" || c.User != "" || c.Password != "" || c.Prompt != ""
			return makeImage(cmd, "imported", func(report image.Progress) (image.Image, error) {
				o.Progress = report
				return image.Import(cmd.Context(), s, args[0], args[1], o)
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.SHA256, "sha256", "", "`digest` that FILE, as it is, must have")
	f.BoolVar(&hasAgent, "agent", false, "falcon's guest agent is in it, and starts at boot")
	f.StringVar(&o.Format, "format", "", "the disk's format, raw or qcow2 (default by FILE's name)")
	f.StringVar(&o.Boot.Method, "boot", "", "what boots the disk: bios, uefi or kernel (default kernel with --kernel, else what the disk's first sector is made for)")
	f.StringVar(&o.Boot.Kernel, "kernel", "", "`file` of a kernel (bzImage, or an ELF file with a PVH entry)")
	f.StringVar(&o.Boot.Initrd, "initrd", "", "`file` of the kernel's initial RAM disk")
	f.StringVar(&o.Boot.Append, "append", "", "the kernel's command `line`")
	f.StringVar(&o.Console.Login, "login", "", "`text` with which the console asks for a user, such as login:")
	f.StringVar(&o.Console.User, "user", "", "`name` of the user to log in as")
	f.StringVar(&o.Console.Password, "password", "", "that user's `password`, if it is asked for")
	f.StringVar(&o.Console.Prompt, "prompt", "", "regular `expression` that matches the shell's prompt")
	f.StringVar(&o.OS, "os", "", "`word` for the operating system, such as debian-12")
	return cmd
}

func newImageExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME FILE",
		Short: "Write an image's whole disk to a file",
		Long: `Write an image's disk, with all that it stands on, to a new file. Its name tells
the format: .raw, .img or .qcow2, followed by .zst if it is to be compressed.`,
		Args:              wantArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: completeImage,
		RunE: withStore(func(cmd *cobra.Command, s image.Store, args []string) error {
			show := newImageProgress(cmd.ErrOrStderr())
			defer show.end()
			return s.Export(cmd.Context(), args[0], args[1], show.report)
		}),
	}
}

func newImageRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME…",
		Short:             "Remove images on which nothing stands",
		Args:              wantArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeImage,
		RunE: withStore(func(cmd *cobra.Command, s image.Store, names []string) error {
			var errs []error
			for _, name := range names {
				if err := s.Remove(cmd.Context(), name); err != nil {
					errs = append(errs, err)
					continue
				}
				printf(cmd, "%s is removed\n", name)
			}
			return errors.Join(errs...)
		}),
	}
}

func newImagePathCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "path NAME",
		Short:             "Print the path of an image's disk",
		Args:              wantArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completeImage,
		RunE: withStore(func(cmd *cobra.Command, s image.Store, args []string) error {
			img, err := getImage(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			printf(cmd, "%s\n", img.Disk)
			return nil
		}),
	}
}

// withStore opens the usual store for a command.
func withStore(run func(*cobra.Command, image.Store, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := falcon.Images()
		if err != nil {
			return err
		}
		return run(cmd, s, args)
	}
}

// getImage gets an image, or says how to come by it.
func getImage(ctx context.Context, s image.Store, name string) (image.Image, error) {
	img, err := s.Get(ctx, name)
	var missing *image.NotFoundError
	if errors.As(err, &missing) {
		missing.Hint = build.Hint(name)
	}
	return img, err
}

// completeImage completes the first argument with names of images.
func completeImage(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := falcon.Images()
	if err != nil || len(args) > 0 && cmd.Name() != "rm" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	images, _ := s.List(cmd.Context())
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
