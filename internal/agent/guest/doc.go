// Package guest is the agent inside a Linux guest: it does what package agent's
// clients ask for.
package guest
