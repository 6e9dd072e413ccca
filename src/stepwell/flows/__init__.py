"""Flow packages: manifests, discovery, matching, and running one step as a process."""
