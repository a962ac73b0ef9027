"""What is installed around us: how this program was installed, and the parts that other packages bring."""
