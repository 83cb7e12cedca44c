package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"
)

// workers is how many cables are made at a time. The kernel does one change
// of devices at a time; a second worker prepares the next one meanwhile.
const workers = 2

// Path returns the path of the namespace.
func (k *Kernel) Path() string { return namespacePath(k.Namespace) }

// Create makes the namespace, cables and external links that do not stand,
// and repairs what is not as it should be. When it fails, or ctx ends, what
// it made is taken away again.
func (k *Kernel) Create(ctx context.Context, cables []Cable, externals []External) error {
	if err := errors.Join(checkNamespaceName(k.Namespace), validate(cables, externals)); err != nil {
		return err
	}
	made, err := ensureNamespace(ctx, k.Namespace)
	if err != nil {
		return err
	}
	var undo undoList
	if err = k.createCables(ctx, cables, &undo); err == nil {
		err = createExternals(ctx, externals, &undo)
	}
	if err == nil {
		return nil
	}
	result := multierror.Append(err, undo.removeExternals())
	if made {
		return multierror.Append(result, unmountNamespace(k.Path())).ErrorOrNil()
	}
	return multierror.Append(result, within(k.Path(), undo.removeCables)).ErrorOrNil()
}

// undoList holds what one call of Create made.
type undoList struct {
	mu        sync.Mutex
	cables    []int // indexes of devices
	externals []External
}

func (u *undoList) madeDevice(index int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cables = append(u.cables, index)
}

func (u *undoList) removeCables() error {
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	var result *multierror.Error
	for _, index := range u.cables {
		if err := r.remove(index); err != nil {
			result = multierror.Append(result, fmt.Errorf("undo device %d: %w", index, err))
		}
	}
	return result.ErrorOrNil()
}

func (u *undoList) removeExternals() error {
	return destroyExternals(u.externals)
}

func (k *Kernel) createCables(ctx context.Context, cables []Cable, undo *undoList) error {
	var standing map[string]device
	err := within(k.Path(), func() (err error) {
		if err := silence(); err != nil {
			return err
		}
		standing, err = listDevices()
		return err
	})
	if err != nil {
		return fmt.Errorf("namespace %s: %w", k.Namespace, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	todo := make(chan Cable, len(cables))
	for _, c := range cables {
		todo <- c
	}
	close(todo)
	for range min(workers, len(cables)) {
		group.Go(func() error {
			return within(k.Path(), func() error {
				return k.work(ctx, todo, standing, undo)
			})
		})
	}
	return group.Wait()
}

// work makes cables on a thread inside the namespace.
func (k *Kernel) work(ctx context.Context, todo <-chan Cable, standing map[string]device, undo *undoList) error {
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	maker := cableMaker{rtnl: r, standing: standing, made: undo.madeDevice,
		redirect: func() (Redirect, error) { return k.redirect(ctx) }}
	for c := range todo {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("link %s: not made: %w", c, context.Cause(ctx))
		}
		if err := maker.ensure(c); err != nil {
			return fmt.Errorf("link %s: %w", c, err)
		}
	}
	return nil
}

// redirect returns how to join taps on this host.
func (k *Kernel) redirect(ctx context.Context) (Redirect, error) {
	if k.Redirect != Auto {
		return k.Redirect, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.probed == Auto {
		found, err := probeRedirect(ctx)
		if err != nil {
			return Auto, err
		}
		k.probed = found
	}
	return k.probed, nil
}

// Destroy deletes the namespace with all that is in it, and the external
// links. What is gone already is no error; an error does not keep it from
// going on, and all are returned.
func (k *Kernel) Destroy(ctx context.Context, externals []External) error {
	if err := checkNamespaceName(k.Namespace); err != nil {
		return err
	}
	var result *multierror.Error
	if err := destroyExternals(externals); err != nil {
		result = multierror.Append(result, err)
	}
	if err := unmountNamespace(k.Path()); err != nil {
		result = multierror.Append(result, err)
	}
	return result.ErrorOrNil()
}

// Inspect returns the state of the devices that stand, those of the given
// external links included, by full name.
func (k *Kernel) Inspect(ctx context.Context, externals []External) (map[string]Device, error) {
	found := map[string]Device{}
	collect := func(all map[string]device) {
		for _, d := range all {
			for _, name := range d.altNames {
				found[name] = d.Device
			}
		}
	}
	if isNamespace(k.Path()) {
		err := within(k.Path(), func() error {
			all, err := listDevices()
			collect(all)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("inspect namespace %s: %w", k.Namespace, err)
		}
	}
	if err := inspectExternals(externals, found); err != nil {
		return nil, err
	}
	return found, ctx.Err()
}

func listDevices() (map[string]device, error) {
	r, err := openRTNL()
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.devices()
}
