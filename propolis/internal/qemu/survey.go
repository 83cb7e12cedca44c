package qemu

import (
	"fmt"

	"github.com/falcon-vm/falcon-go/propolis"
)

// survey looks at everything on the host that an instance refers to. Only
// what every instance needs is an error here; the rest is noted in Host.
func survey(cfg Config) (Host, error) {
	path, err := Find(cfg.QEMU)
	if err != nil {
		return Host{}, err
	}
	accel, why, err := Acceleration(cfg.Accel)
	if err != nil {
		return Host{}, err
	}
	firmware, err := findFirmware(cfg.Firmware)
	if err != nil {
		return Host{}, err
	}
	cfg.log().Info("chose acceleration", "accel", accel, "why", why)
	host := Host{
		QEMU: path, Accel: accel, Firmware: firmware,
		Files: make(map[string]File), Links: make(map[string]Link),
	}
	var links []vnic
	for name, c := range cfg.Spec.Components {
		switch c := c.(type) {
		case propolis.FileStorageBackend:
			host.Files[c.Path] = surveyDisk(c.Path, cfg.Bases[name])
		case propolis.P9FS:
			host.Files[c.Source] = statFile(c.Source)
		case propolis.VirtioSocket:
			host.NoVsock = Vsock()
		case propolis.VirtioNetworkBackend:
			if v, err := parseVNIC(c.VNICName); err == nil && v.link() != "" {
				links = append(links, v)
			}
		}
	}
	for _, v := range links {
		host.Links[v.link()] = surveyLink(v, cfg.NetNS)
	}
	return host, nil
}

// surveyLink looks for the device of v in its namespace.
func surveyLink(v vnic, netns string) Link {
	where := "this network namespace"
	if v.kind == vnicHost {
		netns = ""
	}
	if netns != "" {
		where = "network namespace " + netns
	}
	link, err := findLink(v.name, netns)
	if err != nil {
		return Link{Err: fmt.Errorf("network device %q in %s: %w", v.name, where, err)}
	}
	return link
}
