package server

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/propolis"
)

// validate checks an ensure request against the rules of the API that QEMU
// would not mind. Those that it would, and what the host lacks, are found when
// its command line is planned, and come as [qemu.Refusal]. The error joins all
// that is wrong.
func validate(req propolis.InstanceEnsureRequest) error {
	var errs []error
	if err := uuid.Validate(req.Properties.ID); err != nil {
		errs = append(errs, fmt.Errorf("properties: id %q is no UUID", req.Properties.ID))
	}
	v := validator{components: req.Spec.Components, tags: make(map[string]string)}
	for _, name := range slices.Sorted(maps.Keys(v.components)) {
		if err := v.component(name, v.components[name]); err != nil {
			errs = append(errs, fmt.Errorf("component %q (%s): %w", name, v.components[name].Kind(), err))
		}
	}
	return errors.Join(errs...)
}

type validator struct {
	components propolis.Components
	tags       map[string]string // owners of 9p mount tags
	boot       string            // owner of the boot order
}

func (v *validator) component(name string, c propolis.Component) error {
	switch c := c.(type) {
	case propolis.VirtioDisk:
		return deviceName(name, c.BackendID)
	case propolis.NVMeDisk:
		return deviceName(name, c.BackendID)
	case propolis.VirtioNIC:
		return deviceName(name, c.BackendID)
	case propolis.FileStorageBackend:
		if c.Workers != nil && *c.Workers == 0 {
			return errors.New("workers must be more than 0, or null")
		}
	case propolis.P9FS:
		if other, taken := v.tags[c.Target]; taken {
			return fmt.Errorf("mount tag %q is that of %q already", c.Target, other)
		}
		v.tags[c.Target] = name
	case propolis.BootSettings:
		return v.bootSettings(name, c)
	}
	return nil
}

func deviceName(name, backend string) error {
	if name == backend {
		return errors.New("a device cannot have the name of its backend")
	}
	return nil
}

func (v *validator) bootSettings(name string, c propolis.BootSettings) error {
	if v.boot != "" {
		return fmt.Errorf("%q has boot settings already", v.boot)
	}
	v.boot = name
	for _, entry := range c.Order {
		var path propolis.PCIPath
		switch disk := v.components[entry.ID].(type) {
		case propolis.VirtioDisk:
			path = disk.PCIPath
		case propolis.NVMeDisk:
			path = disk.PCIPath
		}
		if path.Bus != 0 {
			return fmt.Errorf("boot disk %q is at %s: firmware boots from bus 0 only", entry.ID, path)
		}
	}
	return nil
}
