package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/propolis/server"
)

func (a *app) logsCommand() *cobra.Command {
	var follow, stderr, asJSON bool
	cmd := &cobra.Command{
		Use:   "logs NODE",
		Short: "Print the log of a node's server",
		Long: `Print the log of a node's server, which has the command line of its hypervisor,
or with --stderr what server and hypervisor complained of. Each is kept below 16
MiB: then the older half is dropped, and a first line says how much.`,
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
	file, err := os.Open(path)
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

// copyRest copies what is behind the file's position. A file that has been cut is
// gone on with where the position is now, and one that has been emptied and filled
// again from its beginning.
func copyRest(file *os.File, to io.Writer) error {
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	switch size := info.Size(); {
	case size == 0:
		return nil // it is just being cut, or is yet to be written
	case size < at:
		if _, err := file.Seek(afterCut(file, at), io.SeekStart); err != nil {
			return err
		}
	}
	_, err = io.Copy(to, file)
	return err
}

// maxMarker is more than the line takes that says what was dropped, in bytes.
const maxMarker = 1 << 10

// afterCut returns where in a log that has been cut its old position is: at its
// beginning, where nothing says how much was dropped or all of it was.
func afterCut(file *os.File, at int64) int64 {
	head, _ := io.ReadAll(io.NewSectionReader(file, 0, maxMarker))
	line, _, whole := bytes.Cut(head, []byte("\n"))
	var marker map[string]any
	if !whole || json.Unmarshal(line, &marker) != nil {
		return 0
	}
	dropped, _ := marker[server.DroppedBytes].(float64)
	if dropped <= 0 || int64(dropped) > at {
		return 0
	}
	return at - int64(dropped) + int64(len(line)) + 1
}
