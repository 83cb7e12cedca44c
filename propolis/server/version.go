package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/falcon-vm/falcon-go/propolis"
)

// apiVersion is a version of the API: major, minor, patch.
type apiVersion [3]uint64

func (v apiVersion) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// before reports whether v is older than the version major.0.0.
func (v apiVersion) before(major uint64) bool { return v[0] < major }

// newest is the newest version that the server speaks.
func newest() apiVersion { return apiVersion{6, 0, 0} }

// parseVersion reads three numbers with dots in between.
func parseVersion(s string) (apiVersion, bool) {
	parts := strings.Split(s, ".")
	var v apiVersion
	if len(parts) != len(v) {
		return v, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

// requestVersion returns the version that a request asks for.
func requestVersion(r *http.Request) (apiVersion, error) {
	values := r.Header.Values("api-version")
	if len(values) == 0 {
		return apiVersion{}, badRequest("missing expected header \"api-version\"")
	}
	v, ok := parseVersion(values[0])
	switch {
	case !ok:
		return v, badRequest("bad value for header \"api-version\": %q is no semantic version", values[0])
	case newest().before(v[0]) || v[0] == newest()[0] && v != newest():
		return v, badRequest("server does not support this API version: %s", v)
	case v.before(1):
		return v, errNotFound()
	}
	return v, nil
}

// specFor returns spec as version v of the API shows it.
func specFor(v apiVersion, spec propolis.InstanceSpec) (any, error) {
	if v.before(2) {
		return map[string]any{"version": "V0", "spec": map[string]any{
			"board":      spec.Board,
			"components": spec.Components,
		}}, nil
	}
	if v.before(6) {
		return spec, nil
	}
	return withWriteCache(spec)
}

// withWriteCache returns spec with has_write_cache on all its NVMe disks: it is
// a field that 6.0.0 requires and that older versions do not know.
func withWriteCache(spec propolis.InstanceSpec) (any, error) {
	body, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var out struct {
		Board      json.RawMessage `json:"board"`
		Components map[string]struct {
			Type      string         `json:"type"`
			Component map[string]any `json:"component"`
		} `json:"components"`
		Smbios json.RawMessage `json:"smbios"`
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, err
	}
	for name, c := range spec.Components {
		if disk, ok := c.(propolis.NVMeDisk); ok {
			out.Components[name].Component["has_write_cache"] = disk.HasWriteCache
		}
	}
	return out, nil
}
