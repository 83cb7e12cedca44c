// Package image keeps base images and the disks that nodes stand on.
//
// A store of files is one folder, its home:
//
//	img/<name>/            an image: image.json, its disk, perhaps a kernel and an initrd
//	topo/<id>/<node>.qcow2 a node's disk: a qcow2 overlay on an image
//	topo/<id>/<node>.json  who owns that disk and what it stands on
//	lock/                  one lock file for each image or disk somebody works on
//	tmp/                   work folders of builders, on the same file system
//	users/                 which other homes use the images here: see claims
//	claims.name            what this home is called there
//	fetch/                 downloads
//
// An image exists when its image.json does, which is the last file to be put in
// place: nobody ever sees half an image. An image is never changed after that.
// Overlays name their base by absolute path, so a home is not to be moved.
//
// On ZFS, images and disks are volumes of a dataset, and what is said above of
// records are user properties: see ZFS. The home then has
//
//	boot/<guid>/                       kernel and initrd of the image whose volume has that guid
//	zfs/<dataset>/<id>/<node>.raw      a node's disk that was asked to be a file
//	zfs/<dataset>/<id>/<node>.json     who owns it, and of what it is a copy
//	lock/, tmp/                        as above
//
// An ordinary user reads the system's store too, and tells it which of its images
// he uses. An image is not removed while anything stands on it in any home; and
// whatever stands on one knows its digest, so that another one of that name is
// not taken for it.
//
// What a process that was killed has left is known by its lock, which nobody
// holds: see [Files.Abandoned].
package image
