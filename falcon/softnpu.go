package falcon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// asicPatience is how long an ASIC may take to answer the host; it answers
// within milliseconds, but for the load of a large program on a busy host.
const asicPatience = 30 * time.Second

// SoftNPU opens the management channel of the node's SoftNPU ASIC. What is done
// with the client ends with ctx; the caller closes it.
func (n *Node) SoftNPU(ctx context.Context) (*softnpu.Client, error) {
	l, err := n.topology.open()
	if err != nil {
		return nil, err
	}
	np, client, err := l.connect(ctx, n.name)
	if err != nil {
		return nil, &NodeError{Node: n.name, Err: err}
	}
	client.Close()
	c, err := l.asic(ctx, np)
	if err != nil {
		return nil, &NodeError{Node: n.name, Err: err}
	}
	return c, nil
}

// asic reaches the ASIC of a node that runs.
func (l *lab) asic(ctx context.Context, np *NodePlan) (*softnpu.Client, error) {
	if !np.ASIC {
		return nil, errors.New("it has no SoftNPU ASIC: a SoftNPU link gives it one")
	}
	path := l.folder.File(np.Name + asicExt)
	if !l.folder.Has(np.Name + asicExt) {
		return nil, errors.New("its SoftNPU ASIC is reached from its guest only")
	}
	conn, err := dialSocket(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("reaching its SoftNPU ASIC: %w", err)
	}
	return softnpu.NewClient(ctx, path, conn.(softnpu.Stream), asicPatience), nil
}

// loadProgram has the ASIC of a node whose machine is made run the program that
// was declared.
func (l *lab) loadProgram(ctx context.Context, np *NodePlan) error {
	source, err := softnpu.ReadSource(np.Program)
	if err != nil {
		return programError(np.Program, err)
	}
	c, err := l.asic(ctx, np)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Ask(ctx, softnpu.ProgramLoad(source), nil); err != nil {
		return programError(np.Program, err)
	}
	return nil
}

func programError(path string, err error) error {
	return fmt.Errorf("SoftNPU program %s:\n%w", path, err)
}
