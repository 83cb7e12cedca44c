package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

func (a *app) logsCommand() *cobra.Command {
	var follow, stderr, asJSON bool
	cmd := &cobra.Command{
		Use:   "logs NODE",
		Short: "Print the log of a node's server",
		Long: `Print the log of a node's server, which has the command line of its hypervisor,
or with --stderr what server and hypervisor complained of.`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.node(cmd, args[0])
			if err != nil {
				return err
			}
			files, err := n.Logs()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, files)
			}
			path := files.Server
			if stderr {
				path = files.Stderr
			}
			return a.printLog(cmd, n.Name(), path, follow)
		},
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with what is added, until interrupted or the lab is gone")
	cmd.Flags().BoolVar(&stderr, "stderr", false, "what server and hypervisor wrote to standard error")
	jsonFlag(cmd, &asJSON, "print the paths of the files as JSON")
	return cmd
}

func (a *app) printLog(cmd *cobra.Command, node, path string, follow bool) error {
	// What was put there as a link is no log.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("node %s has no log: it has not been started in %s (%s launch), or nothing was worth logging", node, a.dir, a.root.Name())
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if !follow {
		_, err := io.Copy(cmd.OutOrStdout(), file)
		return err
	}
	return followFile(cmd.Context(), file, cmd.OutOrStdout())
}

// followFile copies a file and then what is added to it, until ctx ends or the
// file is removed.
func followFile(ctx context.Context, file *os.File, to io.Writer) error {
	changes, err := watchFile(ctx, file.Name())
	if err != nil {
		return fmt.Errorf("following %s: %w", file.Name(), err)
	}
	defer changes.Close()
	for {
		if err := copyRest(file, to); err != nil {
			return fmt.Errorf("following %s: %w", file.Name(), err)
		}
		err := changes.Wait()
		switch {
		case ctx.Err() != nil:
			return nil // that is how following ends
		case errors.Is(err, os.ErrNotExist):
			return copyRest(file, to)
		case err != nil:
			return fmt.Errorf("following %s: %w", file.Name(), err)
		}
	}
}

// copyRest copies what is behind the file's position, all of it when the file
// has been emptied since.
func copyRest(file *os.File, to io.Writer) error {
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < at {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	_, err = io.Copy(to, file)
	return err
}
