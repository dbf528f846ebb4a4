import sys

import paho.mqtt.client as mqtt


def on_connect(client, userdata, flags, reason_code, properties):
    client.subscribe("greeting")
    client.publish("greeting", "hello")


def on_message(client, userdata, msg):
    print(msg.topic, str(msg.payload))
    client.disconnect()


mqttc = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
mqttc.on_connect = on_connect
mqttc.on_message = on_message
mqttc.tls_set()
mqttc.connect("localhost", int(sys.argv[1]), 60)
mqttc.loop_forever()
