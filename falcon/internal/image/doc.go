// Package image keeps base images and the disks that nodes stand on.
//
// A store of files is one folder, its home:
//
//	img/<name>/            an image: image.json, its disk, perhaps a kernel and an initrd
//	topo/<id>/<node>.qcow2 a node's disk: a qcow2 overlay on an image
//	topo/<id>/<node>.json  who owns that disk and what it stands on
//	lock/                  one lock file for each image or disk somebody works on
//	tmp/                   work folders of builders, on the same file system
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
// An ordinary user reads the system's store too. The system cannot know which
// disks of its users stand on its images, so removing a system image breaks
// those disks; inside one store removal is refused while anything stands on it.
package image
