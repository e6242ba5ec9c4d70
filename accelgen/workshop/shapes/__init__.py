"""What a method of a call begins with where no baseline has its shape: plain, whole and typed."""
