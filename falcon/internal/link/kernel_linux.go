package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/hashicorp/go-multierror"
)

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
	if len(cables) > 0 {
		err = within(k.Path(), func() error { return k.createCables(ctx, cables, &undo) })
	}
	if err == nil {
		err = createExternals(ctx, externals, &undo)
	}
	if err == nil {
		return nil
	}
	err = errors.Join(err, DestroyExternals(undo.externals))
	if made {
		return errors.Join(err, k.removeNamespace())
	}
	return errors.Join(err, within(k.Path(), undo.removeDevices))
}

// undoList holds what one call of Create made.
type undoList struct {
	devices   []string
	externals []External
}

func (u *undoList) removeDevices() error {
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	var errs []error
	for _, name := range u.devices {
		d, err := r.byName(name)
		if err == nil {
			err = r.remove(d.Index)
		}
		if err != nil && !errors.Is(err, ErrNoInterface) {
			errs = append(errs, opError("undo device", name, err, ""))
		}
	}
	return errors.Join(errs...)
}

// createCables makes cables on a thread inside the namespace. One thread: the
// kernel makes one change of devices at a time on the whole host, and with
// two threads it took twice as long.
func (k *Kernel) createCables(ctx context.Context, cables []Cable, undo *undoList) error {
	if err := silence(); err != nil {
		return err
	}
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	standing, err := r.devices()
	if err != nil {
		return err
	}
	maker := cableMaker{rtnl: r, standing: standing, mode: k.Redirect,
		made: func(device string) { undo.devices = append(undo.devices, device) }}
	for _, c := range cables {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("link %s: not made: %w", c, context.Cause(ctx))
		}
		if err := maker.ensure(c); err != nil {
			return fmt.Errorf("link %s: %w", c, err)
		}
	}
	return nil
}

// Destroy deletes the namespace with all that is in it, and the external
// links. It takes a fraction of a second and does not stop when the context
// ends. What is gone already is no error; an error does not keep it from
// going on, and all are returned.
func (k *Kernel) Destroy(_ context.Context, externals []External) error {
	if err := checkNamespaceName(k.Namespace); err != nil {
		return err
	}
	var result *multierror.Error
	if err := DestroyExternals(externals); err != nil {
		result = multierror.Append(result, err)
	}
	if err := k.removeNamespace(); err != nil {
		result = multierror.Append(result, err)
	}
	return result.ErrorOrNil()
}

// removeNamespace removes the devices and then the name. The kernel would
// remove the devices itself when the last user of the namespace is gone, but
// at a time of its own, and never while a leftover process has a tap open.
func (k *Kernel) removeNamespace() error {
	var err error
	if isNamespace(k.Path()) {
		err = opError("remove the devices in namespace", k.Namespace, within(k.Path(), removeAll), "")
	}
	return errors.Join(err, unmountNamespace(k.Path()))
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
