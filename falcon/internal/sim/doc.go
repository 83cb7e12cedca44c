// Package sim is a simulated host: nodes without a hypervisor.
//
// One process, the world ([Run]), serves all nodes of a topology. A [Client]
// starts it with the first node, and it ends with the last. Each node has its
// own Propolis server on a socket, which is the one of package server; its
// machine is a guest of this package: a console with a login and a shell, files,
// and network interfaces whose frames pass from guest to guest inside the
// process. A [Script] makes things slow or fail.
//
// A [Store] has every image. Its disks hold what their guests have changed.
package sim
