package image

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dataset is a volume or a file system.
type dataset struct {
	name string
	kind string // "volume" or "filesystem"
	// origin is the snapshot that it is a clone of, empty for none.
	origin, guid          string
	size, blockSize, used int64
	created               time.Time
	image, disk, topology string // our properties, where they are its own
	snapshots             []string
}

// tree is a part of what ZFS has, by name.
type tree map[string]*dataset

var treeProperties = []string{
	"type", "origin", "guid", "volsize", "volblocksize", "used", "creation", userImage, userDisk, userTopology,
}

// readTree reads a dataset, with its snapshots, and all below it if deep is set.
// One that does not exist is an empty tree.
func readTree(ctx context.Context, root string, deep bool) (tree, error) {
	depth := []string{"-d", "1"}
	if deep {
		depth = []string{"-r"}
	}
	args := append([]string{"-Hp", "-t", "filesystem,volume,snapshot", "-o", "name,property,value,source"}, depth...)
	out, err := runZFS(ctx, root, "get", append(args, strings.Join(treeProperties, ","), root)...)
	if zfsSays(err, saysMissing) {
		return tree{}, nil
	}
	if err != nil {
		return nil, err
	}
	t := tree{}
	for line := range strings.Lines(out) {
		if err := t.read(strings.TrimSuffix(line, "\n")); err != nil {
			return nil, fmt.Errorf("zfs get of %s: %w", root, err)
		}
	}
	return t, nil
}

// read takes a line of zfs get: name, property, value and source.
func (t tree) read(line string) error {
	f := strings.Split(line, "\t")
	if len(f) != 4 {
		return fmt.Errorf("line %q has not 4 columns", line)
	}
	name, property, value, source := f[0], f[1], f[2], f[3]
	volume, snapshot, isSnapshot := strings.Cut(name, "@")
	d := t[volume]
	if d == nil {
		d = &dataset{name: volume}
		t[volume] = d
	}
	if isSnapshot {
		if !slices.Contains(d.snapshots, snapshot) {
			d.snapshots = append(d.snapshots, snapshot)
		}
		return nil
	}
	if value == "-" {
		return nil
	}
	switch property {
	case "type":
		d.kind = value
	case "origin":
		d.origin = value
	case "guid":
		d.guid = value
	}
	// What is inherited does not make a dataset ours.
	own := map[string]*string{userImage: &d.image, userDisk: &d.disk, userTopology: &d.topology}[property]
	if own != nil && source == "local" {
		*own = value
	}
	number := map[string]*int64{"volsize": &d.size, "volblocksize": &d.blockSize, "used": &d.used}[property]
	if number == nil && property != "creation" {
		return nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", property, name, err)
	}
	if number != nil {
		*number = n
	} else {
		d.created = time.Unix(n, 0).UTC()
	}
	return nil
}

// sorted returns all of a tree by name.
func (t tree) sorted() []*dataset {
	var all []*dataset
	for _, d := range t {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *dataset) int { return strings.Compare(a.name, b.name) })
	return all
}

// clones returns the clones of a volume's snapshots.
func (t tree) clones(volume string) []*dataset {
	return slices.DeleteFunc(t.sorted(), func(d *dataset) bool { return d.originVolume() != volume })
}

// originVolume is the volume of the snapshot that a clone stands on.
func (d *dataset) originVolume() string {
	volume, _, _ := strings.Cut(d.origin, "@")
	return volume
}

// ours tells whether falcon has made it.
func (d *dataset) ours() bool { return d.image != "" || d.disk != "" || d.topology != "" }

// based tells whether disks can be made on it.
func (d *dataset) based() bool {
	return d.kind == "volume" && slices.Contains(d.snapshots, snapshotBase)
}

// halfMade tells whether it is what an image was to be made of.
func (d *dataset) halfMade() bool {
	return d.image != "" && (d.image == imageDraft || d.image == imageReader || !d.based())
}

// imageRecord is the record of an image. Volumes of others have none.
func (d *dataset) imageRecord() (*record, error) {
	if d.image == "" || d.halfMade() {
		return nil, nil
	}
	var r record
	if err := json.Unmarshal([]byte(d.image), &r); err != nil {
		return nil, fmt.Errorf("property %s of %s is damaged: %w", userImage, d.name, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("property %s of %s has version %d, this program knows %d", userImage, d.name, r.Version, recordVersion)
	}
	return &r, nil
}

// zvolDisk is what a disk's property says.
type zvolDisk struct {
	DiskOwner
	// Draft is set until the disk has its size.
	Draft bool `json:"draft,omitempty"`
}

// ownerOf reads the property of a disk, or that of a topology's file system; ok
// is false if there is none.
func ownerOf(property string) (disk zvolDisk, ok bool) {
	if property == "" || json.Unmarshal([]byte(property), &disk) != nil {
		return zvolDisk{}, false
	}
	return disk, true
}

func (d *dataset) base() string { return path.Base(d.name) }

// property is an argument that gives a user property a JSON value.
func property(name string, value any) (string, error) {
	data, err := json.Marshal(value)
	return name + "=" + string(data), err
}
