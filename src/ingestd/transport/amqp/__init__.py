"""RabbitMQ: requests in, events and results out, nothing lost between.

The only package that knows the AMQP library. `service.AmqpService` is the worker's side, `client` the side of the
command line and of upstreams, `topology` what both stand on.
"""
