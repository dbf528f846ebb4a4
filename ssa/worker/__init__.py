"""All of ssad that touches the bytes of applications and peers. `pipeline` is the way of a request; read it first."""
