package image

// Known is an image that its makers publish, ready to be imported.
type Known struct {
	Name, Description string
	// URL is where its disk is, raw and compressed with xz. The digest is
	// beside it where its makers publish one.
	URL     string
	Boot    Boot
	Console Console
	OS      string
}

// knownAt is where upstream's falcon gets its images from.
const knownAt = "https://oxide-falcon-assets.s3.us-west-2.amazonaws.com/"

// known are the images that upstream's falcon knows. Both ask for a user on the
// first serial port and take root with an empty password, or without asking for
// one.
var known = []Known{
	{
		Name: "debian-11.0", Description: "Debian 11, as upstream's falcon has it",
		URL: knownAt + "debian-11.0_0.raw.xz", OS: "debian-11",
		Boot:    Boot{Method: BootUEFI},
		Console: Console{Known: true, Login: "login:", User: "root", Prompt: `root@.+# ?$`},
	},
	{
		Name: "helios-2.5", Description: "Helios 2.5, illumos as made by Oxide",
		URL: knownAt + "helios-2.5_0.raw.xz", OS: "helios-2.5",
		Boot:    Boot{Method: BootUEFI},
		Console: Console{Known: true, Login: "login:", User: "root", Prompt: `root@.+# ?$`},
	},
}

// KnownImages lists them by name.
func KnownImages() []Known { return append([]Known(nil), known...) }

// KnownNames lists their names.
func KnownNames() []string {
	var names []string
	for _, k := range known {
		names = append(names, k.Name)
	}
	return names
}

// FindKnown returns the known image of a name.
func FindKnown(name string) (Known, bool) {
	for _, k := range known {
		if k.Name == name {
			return k, true
		}
	}
	return Known{}, false
}
