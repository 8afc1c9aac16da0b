# There is nothing to declare: that this file is here has the module compiled.
