"""The plugins: a module each, named like the plugin in lower case, whose `PLUGIN` is a subclass of `Plugin`.

`LOAD name` makes one; `SET plugins = name` registers it with a service, whose hooks it gets.
"""
